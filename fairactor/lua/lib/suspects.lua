-- Suspects: queued tasks that a runtime had when it died, or when it lost its lease. One of them may be what kills, so a
-- process runs them apart from each other, each time for longer, and alone before it gives one up.
--
-- They stand beside the mailbox of their tenant. Tenants take turns: SUSPECTED is in the order in which their suspects
-- were claimed or passed over, so neither many suspects nor a limit of one tenant hold up those of others.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/claim.lua

local suspects_wait = call('EXISTS', SUSPECTED) == 1
local choose_suspect, charge_suspect, add_suspect, write_suspect, suspects_left
if suspects_wait or ARGV[7]:byte() == 3 then -- else creating these functions would take time in every turn
  -- What the process permits, and its part in emptying itself for a task that has to run alone: it will not, it would
  -- have to finish tasks first, or it runs nothing now.
  local APART, ALONE, SHARED = 1, 2, 3
  local BUSY, RESTS = 1, 2
  -- Replies: none waits here, some wait, one waits for this process to run nothing else.
  local NONE_LEFT, SOME_LEFT, TO_EMPTY = 0, 1, 2

  local LOOK, DEPTH = 50, 5 -- the tenants to look at, and the suspects of each
  local DEPTH_IN_LANES = 20 -- likewise, if other runtimes have to run some of them
  local EMPTYING = 60000 -- ms for which other processes leave it to one to empty itself

  local permit, most, role = 0, 255, 0
  local chosen = false -- id, owner, cost, alone
  local passed = {} -- the tenants that were looked at
  local to_empty = false

  -- Returns those of some tenants that have suspects, in their order.
  local function in_order(names)
    local found, places = {}, {}
    for i, at in ipairs(read_all('ZMSCORE', SUSPECTED, names)) do
      if at then found[#found + 1], places[names[i]] = names[i], tonumber(at) end
    end
    table.sort(found, function(a, b) return places[a] < places[b] end)
    return found
  end

  -- Returns the tenants whose suspects a runtime may claim, its own ones first.
  local function candidates(runtime)
    local all = not home_time(runtime)
    local names, others = {}, {}
    if not all then
      names, others = in_order((names_in(ASSIGNED .. runtime))), (names_in(STEAL .. runtime))
      all = others[1] == ''
    end
    for _, name in ipairs(all and call('ZRANGE', SUSPECTED, 0, LOOK - 1) or in_order(others)) do
      if #names < LOOK then names[#names + 1] = name end
    end
    return names
  end

  local function may_start(limits)
    if not limits then return true end
    limits.queued = limits.queued + 1 -- it stands beside the mailbox
    local eligible = eligibility(limits)
    limits.queued = limits.queued - 1
    return eligible == true
  end

  local apart, alone, least -- the suspects that may run, with their tenants, and the deliveries of the first

  -- Looks at a tenant's suspects: which may run beside other tasks, and which has to run alone. What has died least
  -- goes first: it is the least likely to kill.
  local function look_at(name)
    for _, id in ipairs(call('ZRANGE', SUSPECTS .. name, 0, (lanes and DEPTH_IN_LANES or DEPTH) - 1)) do
      local count = call('GETRANGE', TASK .. id, 1, 1):byte() or 1
      local is_ours = (not lanes or lanes.serves(shard.kind, lanes.of_task(id))) and (not limits or limits.lets_start(id, name))
      if is_ours and count + 1 >= most then
        alone = alone or { id, name }
      elseif is_ours and (not least or count < least) then
        apart, least = { id, name }, count
      end
    end
  end

  -- Whether a process may empty itself: one at a time, so that the others go on.
  local function may_empty(runtime)
    if role ~= BUSY then return role == RESTS end
    local other, till = unpack(call('HMGET', META, 'emptying', 'emptying_till'))
    return not other or other == runtime or tonumber(till) < shard.ms
      or tonumber(call('ZSCORE', LEASES, other) or 0) <= NO_LEASE
  end

  -- Chooses a suspect for a runtime that could start `want` tasks. Returns how many more it may claim besides.
  local function look(runtime, want)
    local names = candidates(runtime)
    load_tenants(names)
    for i, name in ipairs(names) do
      passed[i] = name
      if may_start(tenants[name][LIMITS]) then look_at(name) end
      if permit == ALONE and alone or permit == APART and least == 1 then break end
    end
    to_empty = permit == APART and alone and may_empty(runtime)
    if to_empty then return 0 end
    local by_itself = permit == ALONE and alone
    local found = by_itself or apart
    if not found or want < 1 then return want end
    local id, name = found[1], found[2]
    chosen = { id = id, owner = tenants[name], cost = cost_of(name, id), alone = by_itself and true }
    weigh(id)
    if limits then chosen.taken = limits.take_for(id, name) end
    if chosen.owner[LIMITS] then
      chosen.owner[LIMITS].suspects = chosen.owner[LIMITS].suspects - 1
      count_start(chosen.owner[LIMITS])
    end
    return by_itself and 0 or want - 1
  end

  -- Returns how many tasks the runtime may claim besides, and whether it may claim ahead.
  function choose_suspect(runtime, want, packed, gives_back)
    permit, most, role = struct.unpack('>BBB', packed)
    if not gives_back and (permit == APART or permit == ALONE) then want = look(runtime, want) end
    return want, not to_empty and not (chosen and chosen.alone)
  end

  -- Charges the tenant, if it has a place on the ring; after `update_ring`.
  function charge_suspect()
    if not chosen then return end
    local t = chosen.owner
    load_tags({ t[NAME] })
    for _, entry in ipairs({ t, t[OUTER].group }) do
      if entry[TAG] and not entry[LEAVES] then
        if entry[TAG] == entry[STORED] then table.insert(entry[OUTER].changed, entry) end
        entry[TAG] = entry[TAG] + chosen.cost / entry[WEIGHT]
      end
    end
  end

  -- Adds the suspect to what a turn claims.
  function add_suspect(claims)
    if not chosen then return end
    local n = #claims.ids + 1
    local record = read_for_reply({ chosen.id }, BEGINNING)[1] or substitute_record(chosen.owner[NAME])
    claims.ids[n], claims.owners[n], claims.charged[n] = chosen.id, chosen.owner, chosen.cost
    claims.records[n], claims.alone = record, chosen.alone and n
    claims.taken[chosen.id] = chosen.taken
    table.insert(claims.reply, chosen.id)
    table.insert(claims.reply, record)
  end

  -- The claims of a runtime no longer run alone.
  local function share(runtime)
    local claims = call('HGETALL', CLAIMS .. runtime)
    for i = 1, #claims, 2 do
      local mark = claims[i + 1]
      if mark:byte(26) == 1 then call('HSET', CLAIMS .. runtime, claims[i], mark:sub(1, 25) .. '\0' .. mark:sub(27)) end
    end
  end

  function write_suspect(runtime)
    if permit == SHARED then share(runtime) end
    for i, name in ipairs(passed) do call('ZADD', SUSPECTED, 'XX', integer(shard.now + i), name) end
    if to_empty then
      call('HSET', META, 'emptying', runtime, 'emptying_till', integer(shard.ms + EMPTYING))
    end
    if not chosen then return end
    local name = chosen.owner[NAME]
    call('ZREM', SUSPECTS .. name, chosen.id)
    if call('EXISTS', SUSPECTS .. name) == 0 then call('ZREM', SUSPECTED, name) end
    if call('EXISTS', SUSPECTED) == 1 then -- the next process takes the next
      call('SREM', shard.idle, runtime)
      wake_each_kind()
    end
  end

  -- Returns whether suspects wait for this runtime. Those that it may not claim now do not count.
  function suspects_left()
    if to_empty then return TO_EMPTY end
    local asked = permit == APART or permit == ALONE
    return suspects_wait and (not asked or chosen and call('EXISTS', SUSPECTED) == 1) and SOME_LEFT or NONE_LEFT
  end
end
