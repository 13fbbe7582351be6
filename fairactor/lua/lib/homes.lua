-- Dedicated runtimes, which serve certain tenants only.
--
-- Each has its own virtual time, since its tenants may be served faster or slower than others: one that arrives must
-- neither wait nor gain by that. It is never behind the shard's, since all other runtimes serve every tenant.
--
-- An index says which runtimes serve a tenant (ASSIGNED_TO, STOLEN_BY), so a script looks at those of its tenants only. The
-- index may name runtimes that are gone: the release before removes them without it. And it lacks the runtimes of that
-- release (`unindexed`). META keeps which these are, for as long as the number of dedicated runtimes stays the same, and for
-- some seconds at most.

-- @include lib/base.lua

local MOST_HOMES = 32 -- runtimes of a tenant that are looked at
local MOST_WOKEN = 200
local MOST_OWN = 200 -- tenants of a runtime that a turn looks at; if it has more:
local LUCKY_NAMES, FIRST_NAMES = 50, 1000 -- some of all, and those of the first on the ring
local INDEX_TRUSTED = 10000 -- ms

local number_of_homes = call('HLEN', HOMES)
local has_dedicated = number_of_homes > 0
local home_times = {} -- runtime -> its virtual time, or false if it is not dedicated
local kinds_of_homes = {} -- runtime -> its kind, if there are several

-- The dedicated runtimes that the index lacks, when they were looked for, and whether META has to be written.
local unindexed, index_checked_at, index_changes = {}, shard.ms, false
if has_dedicated then
  local noted = shard.homes and cmsgpack.unpack(shard.homes) or { -1, 0 }
  index_checked_at = noted[2]
  if noted[1] == number_of_homes and math.abs(shard.ms - index_checked_at) < INDEX_TRUSTED then
    for i = 3, #noted do unindexed[i - 2] = noted[i] end
  else
    index_checked_at, index_changes = shard.ms, true
    local runtimes = call('HKEYS', HOMES)
    for i, is_indexed in ipairs(read_all('SMISMEMBER', INDEXED, runtimes)) do
      if is_indexed == 0 then unindexed[#unindexed + 1] = runtimes[i] end
    end
  end
end

-- Keeps which runtimes the index lacks, if that may have changed.
local function save_unindexed()
  if not index_changes then return end
  if number_of_homes == 0 then return call('HDEL', META, 'homes') end
  call('HSET', META, 'homes', cmsgpack.pack({ number_of_homes, index_checked_at, unpack(unindexed) }))
end

-- Returns the virtual time of a dedicated runtime, or false.
local function home_time(runtime)
  if home_times[runtime] == nil then
    home_times[runtime] = has_dedicated and tonumber(call('HGET', HOMES, runtime) or nil) or false
  end
  return home_times[runtime]
end

-- Notes the virtual time of a runtime that is dedicated from here on, or false if it is not any more.
local function note_home(runtime, time)
  local change = (time and 1 or 0) - (home_time(runtime) and 1 or 0)
  number_of_homes, index_changes, home_times[runtime] = number_of_homes + change, index_changes or change ~= 0, time
  has_dedicated = number_of_homes > 0
  for i = #unindexed, 1, -1 do
    if unindexed[i] == runtime then table.remove(unindexed, i) end
  end
end

-- Returns the kind of a dedicated runtime; nil if it is not known.
local function kind_of_home(runtime)
  if kinds_of_homes[runtime] == nil then kinds_of_homes[runtime] = call('HGET', KIND_OF, runtime) end
  return kinds_of_homes[runtime] or nil
end

-- Whether a dedicated runtime is of a kind, by default that for which the script acts.
local function is_of_kind(runtime, kind)
  return not shard.several or (kind_of_home(runtime) or shard.kind) == (kind or shard.kind)
end

local reassigned, reassigned_tenants -- a runtime whose tenants change here, and its new ones

-- Returns the dedicated runtimes to which a tenant is assigned: some, if they are very many.
local function homes_of(name)
  local found = {}
  local function look_at(runtimes)
    for _, runtime in ipairs(runtimes) do
      local serves = runtime ~= reassigned and home_time(runtime) and call('SISMEMBER', ASSIGNED .. runtime, name) == 1
      if serves then found[#found + 1] = runtime end
    end
  end
  if not has_dedicated then return found end
  look_at(call('SRANDMEMBER', ASSIGNED_TO .. name, MOST_HOMES))
  look_at(unindexed)
  if reassigned and reassigned_tenants[name] then found[#found + 1] = reassigned end
  return found
end

-- Returns the latest virtual time of a tenant's dedicated runtimes of a kind, by default that for which the script acts;
-- nil if there is none. `virtual` is the time of the kind.
local function dedicated_time(name, kind, virtual)
  local latest
  for _, runtime in ipairs(has_dedicated and homes_of(name) or {}) do
    if is_of_kind(runtime, kind) then latest = math.max(latest or virtual or shard.virtual, home_time(runtime)) end
  end
  return latest
end

-- Lets the virtual times of the dedicated runtimes of a kind begin at 0 again.
local function restart_homes(kind)
  local runtimes, times = has_dedicated and call('HKEYS', HOMES) or {}, {}
  local kinds = shard.several and read_all('HMGET', KIND_OF, runtimes) or {}
  for i, runtime in ipairs(runtimes) do
    if not shard.several or (kinds[i] or kind) == kind then times[#times + 1], times[#times + 2] = runtime, '0' end
  end
  write_all('HSET', HOMES, times)
end

-- Wakes one runtime of a kind that would take more work of any tenant; it wakes the next if it leaves any. A killed
-- runtime receives nothing (PUBLISH returns how many did), so the next one is tried. Returns whether one was there.
local function wake_kind(idle)
  for _ = 1, 8 do
    local runtime = call('SPOP', idle)
    if not runtime then return false end
    if call('PUBLISH', INBOX .. runtime, 'w') > 0 then return true end
  end
end

-- Returns the key of the idle runtimes of a kind.
local function idle_of(kind) return kind == '0' and IDLE or KIND_IDLE .. kind end

-- Wakes a runtime, of the kind for which the script acts if one of it is idle.
local function wake_idle()
  if wake_kind(shard.idle) or not shard.several then return end
  for kind in shard.kinds:gmatch('%d+') do
    if kind ~= shard.kind and wake_kind(idle_of(kind)) then return end
  end
end

local function wake_home(runtime)
  call('SREM', IDLE_HOMES, runtime)
  call('PUBLISH', INBOX .. runtime, 'w')
end

-- Wakes the dedicated runtimes that serve some of these tenants.
local function wake_dedicated(names)
  if not has_dedicated or call('EXISTS', IDLE_HOMES) == 0 then return end
  for _, name in ipairs(names) do
    for _, index in ipairs({ ASSIGNED_TO, STOLEN_BY }) do
      for _, runtime in ipairs(call('SINTER', IDLE_HOMES, index .. name)) do wake_home(runtime) end
    end
  end
  for _, runtime in ipairs(unindexed) do
    local sleeps = call('SISMEMBER', IDLE_HOMES, runtime) == 1
    for _, name in ipairs(sleeps and names or {}) do
      if call('SISMEMBER', ASSIGNED .. runtime, name) == 1 or call('SISMEMBER', STEAL .. runtime, name) == 1 then
        wake_home(runtime)
        break
      end
    end
  end
end

-- Wakes dedicated runtimes of some kinds, or of all: as many as one script should.
local function wake_homes(some)
  for _, runtime in ipairs(has_dedicated and call('SRANDMEMBER', IDLE_HOMES, MOST_WOKEN) or {}) do
    if not some or some[shard.several and kind_of_home(runtime) or shard.kind] then wake_home(runtime) end
  end
end

-- Wakes a runtime of each kind.
local function wake_each_kind()
  for kind in shard.kinds:gmatch('%d+') do wake_kind(idle_of(kind)) end
end

-- Wakes dedicated runtimes and one of the others of each kind: one that leaves or serves others now may have been the only one
-- that knew of work, or how long to sleep.
local function wake_all()
  wake_each_kind()
  wake_homes()
end

-- Returns the tenants in a set, ASSIGNED or STEAL of a runtime, and whether these are only some. If they are very many, they
-- are those that come first on the ring, and some others, so that each is found some time.
local function names_in(key)
  if call('SCARD', key) <= MOST_OWN then return call('SMEMBERS', key), false end
  local names, known, first = call('SRANDMEMBER', key, LUCKY_NAMES), {}, call('ZRANGE', shard.ring, 0, FIRST_NAMES - 1)
  for _, name in ipairs(names) do known[name] = true end
  for i, is_in in ipairs(read_all('SMISMEMBER', key, first)) do
    if is_in == 1 and not known[first[i]] and #names < MOST_OWN then names[#names + 1] = first[i] end
  end
  return names, true
end

-- Whether a runtime serves all tenants, if only when its own have no work.
local function serves_all(runtime)
  return not home_time(runtime) or call('SISMEMBER', STEAL .. runtime, '') == 1
end
