-- Registers what a runtime can run.

-- @include lib/fleet.lua

local MODEL = '6' -- the data model, as in shard.py

-- Whether a runtime that knows no kinds holds a lease: it is of a release before.
local function has_old_runtimes(except)
  for _, runtime in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    if runtime ~= except and call('HEXISTS', KIND_OF, runtime) == 0 then return true end
  end
  return false
end

-- Returns the number for a kind that is not known, and whether it takes over the ring of the kind before.
local function number_for(living, actors, from_before)
  if not next(living) and not shard.lanes and not actors['\31'] and not from_before then return shard.kind, true end
  return integer((tonumber(call('HGET', META, 'kinds_made') or nil) or 0) + 1), false
end

-- Registers a runtime: the digest of its kind, the kind, packed, and the ms for which tasks wait that nobody can run. The
-- script acts for the kind from here on. Returns the function that writes, which returns the reply.
local function register(runtime, digest, packed, unknown_ttl)
  -- The release before knows the ring of kind 0 only. Its senders may go on using that, so no kind has it from now on.
  local from_before = call('HGET', META, 'version') ~= MODEL
  if from_before and has_old_runtimes(runtime) then
    return function()
      call('HSET', KIND_OF, runtime, '0')
      call('HSET', META, 'compat', '1', 'unknown_ttl', unknown_ttl)
      return { '0', 0 }
    end
  end
  local was_compat, living = shard.compat, shard.compat and {} or living_kinds(runtime)
  shard.compat = false
  local actors, gone, others = cmsgpack.unpack(packed), {}, {}
  local number, takes_over = call('HGET', KIND_NUMBERS, digest), false
  local is_known = number and not was_compat
  if not is_known then number, takes_over = number_for(living, actors, from_before) end
  for kind in shard.kinds:gmatch('%d+') do
    if kind ~= number and not from_before then -- else RING stays for what old senders put there
      table.insert(living[kind] and others or gone, kind)
    end
  end
  local stay = { number, unpack(others) }
  table.sort(stay, function(a, b) return tonumber(a) < tonumber(b) end)
  use_kinds(table.concat(stay, ','), number)
  local comes = #gone == 0 and not was_compat and not from_before
  local write_lanes
  if comes then
    write_lanes = not is_known and add_kind(actors, others)
  elseif not is_known or #gone > 0 then
    write_lanes = revise_lanes(read_tables(others, { [number] = actors }), true)
  end
  local filling = not is_known and not takes_over or call('HEXISTS', KIND .. number, '\31\31filling') == 1
  local key, fields = KIND .. number, {}
  for actor, version in pairs(actors) do fields[#fields + 1], fields[#fields + 2] = actor, version end
  return function()
    local forgotten = { [number] = not is_known }
    for _, kind in ipairs(gone) do
      forget_kind(kind)
      forgotten[kind] = true
    end
    if was_compat then call('DEL', KIND_OF, KIND_NUMBERS) end
    forget_digests(forgotten)
    if not is_known then
      call('DEL', key)
      write_all('HSET', key, fields)
      if filling then call('HSET', key, '\31\31filling', '0') end
      call('HSET', KIND_NUMBERS, digest, number)
    end
    call('HSET', KIND_OF, runtime, number)
    call('HSET', META, 'kinds', shard.kinds, 'unknown_ttl', unknown_ttl, 'version', MODEL)
    if tonumber(number) > (tonumber(call('HGET', META, 'kinds_made') or nil) or 0) then
      call('HSET', META, 'kinds_made', number)
    end
    call('HDEL', META, 'compat')
    if from_before then
      call('HSET', META, 'old_senders', '1')
      if shard.lanes then call('HSET', META, 'unsorted', integer(shard.stamp)) end
    end
    if write_lanes then write_lanes() end
    return { number, filling and 1 or 0 }
  end
end
