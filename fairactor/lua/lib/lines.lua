-- Lines: the tenants that wait for the same limits.
--
-- A kind of runtimes has a line, which is a ring, for each set of limits of the lanes that it serves. The line holds the
-- tenants with a queued task in such a lane, unless limits of their own hold them back. Its tags count what starts take of
-- the first limit of the set. All lines with the same first limit share its virtual time, and a tenant that was served in
-- one of them is charged in all.
--
-- LINES says when a turn has to look at a line: one whose limits are used up costs nothing until then.

-- @include lib/base.lua
-- @takes lanes, limits, open_lines from lib/lanes.lua
-- @takes tenants, NAME, WEIGHT, LIMITS, OUTER, GROUP_BYTE, load_tenants from lib/ring.lua
-- @takes has_dedicated, wake_kind, wake_homes, idle_of from lib/homes.lua
-- @takes eligibility, policy_of from lib/policy.lua

function open_lines()
  local NEWEST = 0.05 -- the part of the newest start in an average cost
  local REOPENED = 50 -- lines that look again when a limit lets more start
  local clocks = {} -- limit -> its clock
  local freed = {} -- tenants that were held back until now
  local held = {} -- tenant that its own limits hold back -> ms until when, math.huge: no time is enough
  local left_out = {} -- line, tenant -> whether its own limits hold back its first task there
  limits.woken = {} -- kinds of which a runtime has to look

  -- Returns a line of a kind.
  function limits.line_of(kind, set)
    local id = kind .. '\31' .. set
    return { kind = kind, set = set, id = id, key = LINE .. id, first = limits.names_in(set)[1] }
  end

  -- Returns the key of the ring of a group in a line.
  function limits.group_key(line, group) return LINE_GROUP .. line.id .. ':' .. group end

  -- Returns the clock of a limit: virtual time, average cost of a start.
  function limits.clock_of(name)
    local clock = clocks[name]
    if not clock then
      local packed, virtual, average = call('HGET', LIMIT_CLOCKS, name), 0, nil
      if packed and #packed == 16 then virtual, average = struct.unpack('>dd', packed) end
      clock = { virtual = virtual, average = average, changed = false }
      clocks[name] = clock
    end
    return clock
  end

  -- Counts what a start took of a limit, at this tag.
  function limits.advance(name, tag, cost)
    local clock = limits.clock_of(name)
    clock.virtual = math.max(clock.virtual, tag)
    clock.average = clock.average and clock.average + NEWEST * (cost - clock.average) or cost
    clock.changed = true
  end

  -- Returns the lines of all kinds in which tenants wait for a limit.
  function limits.lines_of(name)
    local lines = {}
    for i, id in ipairs(call('SRANDMEMBER', LINES_OF .. name, REOPENED)) do
      local kind = id:match('^%d+')
      lines[i] = limits.line_of(kind, id:sub(#kind + 2))
    end
    return lines
  end

  -- Charges a tenant that waits for a limit for what an earlier start took in addition, or gives that back.
  function limits.charge(name, tenant, cost)
    local t = tenants[tenant]
    local group = t[OUTER].group
    for _, line in ipairs(limits.lines_of(name)) do
      if line.first == name then
        local key = group and limits.group_key(line, group[NAME]:sub(2)) or line.key
        call('ZADD', key, 'XX', 'INCR', exact(cost / t[WEIGHT]), tenant)
        if group then call('ZADD', line.key, 'XX', 'INCR', exact(cost / group[WEIGHT]), group[NAME]) end
      end
    end
  end

  -- Loads tenants that were held back by limits of their own until now.
  function limits.release_held()
    local names = call('ZRANGEBYSCORE', HELD_BACK, '-inf', integer(shard.ms), 'LIMIT', 0, 100)
    load_tenants(names)
    for _, name in ipairs(names) do freed[name], lanes.changed[name] = true, true end
  end

  -- Whether a tenant has a task that belongs in a line.
  function limits.works_in(line, name)
    for lane, n in pairs(lanes.box_of(name, true)) do
      if n > 0 and limits.set_of(lane) == line.set and lanes.serves(line.kind, lane) then return true end
    end
    return false
  end

  local function note_held(line, name, till)
    held[name] = math.min(held[name] or math.huge, till or math.huge)
    -- The reply to a turn says until when, to a runtime of its kind.
    if till and not (shard.reports_throttled and line.kind == shard.kind) then limits.woken[line.kind] = true end
  end

  -- Notes that limits of its own hold a tenant back in a line: until when, in ms, or false.
  function limits.hold(line, name, till)
    left_out[line.id .. name] = true
    held[name] = math.min(held[name] or math.huge, till or math.huge)
    lanes.changed[name] = true
  end

  -- Takes back that limits of its own hold a tenant back in a line: it did not start what was planned before.
  function limits.unhold(line, name)
    left_out[line.id .. name], held[name] = nil, nil
    lanes.changed[name] = true
  end

  -- Returns what the start of a tenant's first task in a line takes.
  local function costs_of_first(line, name)
    local first, place = nil, math.huge
    for lane, n in pairs(lanes.box_of(name, true)) do
      local belongs = n > 0 and limits.set_of(lane) == line.set and lanes.serves(line.kind, lane)
      local found = belongs and call('ZRANGE', mailbox(name, lane), 0, 0, 'WITHSCORES') or {}
      local at = tonumber(found[2])
      if at and (at < place or at == place and found[1] < first) then first, place = found[1], at end
    end
    return first and limits.costs_in(lanes.route_in(call('GETRANGE', TASK .. first, 0, 4095))) or {}
  end

  -- Whether a tenant belongs in a line in which it has tasks.
  local function belongs_in(line, name)
    local t = tenants[name]
    if t[LIMITS] and eligibility(t[LIMITS]) ~= true then return false end
    if left_out[line.id .. name] then return false end
    local opens = limits.opens_for(line.set, limits.has_own_rates(line.set) and costs_of_first(line, name) or {}, name)
    if opens ~= true then note_held(line, name, opens) end
    return opens == true
  end

  -- Notes a line that has got its first tenant, or that has lost its last one.
  local function register(line)
    local exists = call('EXISTS', line.key) == 1
    if exists and not call('ZSCORE', LINES .. line.kind, line.set) then
      for _, name in ipairs(limits.names_in(line.set)) do call('SADD', LINES_OF .. name, line.id) end
      call('ZADD', LINES .. line.kind, 0, line.set) -- last: if a step of the repair breaks off, it is done again
    elseif not exists and call('ZREM', LINES .. line.kind, line.set) == 1 then
      call('DEL', LINE_GROUPS .. line.id)
      for _, name in ipairs(limits.names_in(line.set)) do
        call('SREM', LINES_OF .. name, line.id)
        if call('EXISTS', LINES_OF .. name) == 0 then
          call('HDEL', LIMIT_CLOCKS, name)
          clocks[name] = nil
        end
      end
    end
  end
  limits.register = register

  -- Brings the group of tenants that have changed into a line, or out of it.
  local function save_group(line, group)
    local member, clock = string.char(GROUP_BYTE) .. group, limits.clock_of(line.first)
    if call('EXISTS', limits.group_key(line, group)) == 0 then
      call('ZREM', line.key, member)
      call('HDEL', LINE_GROUPS .. line.id, group)
    else
      call('ZADD', line.key, 'NX', exact(clock.virtual + (clock.average or 1) / (policy_of(member).weight or 1)), member)
    end
  end

  -- Returns the name of a tenant's group, or nil.
  local function group_in(t) return t[OUTER].group and t[OUTER].group[NAME]:sub(2) end
  limits.group_in = group_in

  -- Takes a tenant out of a line, where it stands in this ring: that of the line, or of a group.
  function limits.remove_from(line, name, key, group)
    call('ZREM', key, name)
    if group then save_group(line, group) end
    register(line)
  end

  -- Brings tenants that have changed into a line, or out of it. `works` says which of them have tasks there.
  local function save_line(line, names, works)
    local by_group, joined = {}, false
    limits.load({ line.set }, { names })
    for _, name in ipairs(names) do
      local group = group_in(tenants[name]) or ''
      by_group[group] = by_group[group] or {}
      table.insert(by_group[group], name)
    end
    local clock = limits.clock_of(line.first)
    for group, members in pairs(by_group) do
      local key, virtual, additions, removals = line.key, clock.virtual, {}, {}
      if group ~= '' then
        key, virtual = limits.group_key(line, group), tonumber(call('HGET', LINE_GROUPS .. line.id, group) or nil) or 0
      end
      for i, stored in ipairs(read_all('ZMSCORE', key, members)) do
        local name = members[i]
        local belongs = works[name] and belongs_in(line, name)
        if belongs and not stored then
          additions[#additions + 1] = exact(virtual + (clock.average or 1) / tenants[name][WEIGHT])
          additions[#additions + 1], joined = name, true
        elseif stored and not belongs then
          removals[#removals + 1] = name
        end
      end
      write_all('ZADD', key, additions)
      write_all('ZREM', key, removals)
      if group ~= '' then save_group(line, group) end
    end
    register(line)
    if joined and tonumber(call('ZSCORE', LINES .. line.kind, line.set)) <= shard.ms then limits.woken[line.kind] = true end
  end

  -- Calls a function with each line of the lanes of a tenant: its id, its kind, its set, and whether the tenant has tasks there. If
  -- it has several lanes there, this may come once for each.
  local function each_line(name, use)
    local any = false
    for lane, n in pairs(lanes.box_of(name, true)) do
      local set = limits.set_of(lane)
      for i = 1, set and #lanes.kinds or 0 do
        local kind = lanes.kinds[i]
        if lanes.serves(kind, lane) then
          any = true
          use(kind .. '\31' .. set, kind, set, n > 0)
        end
      end
    end
    return any
  end

  -- Makes the changed policy of a tenant count in its lines: a greater weight at once. `before` is as in `lanes.save_policy`.
  function limits.save_policy(t, before)
    if t[NAME]:byte() == GROUP_BYTE then return end
    each_line(t[NAME], function(_, kind, set)
      local line = limits.line_of(kind, set)
      local group, clock = group_in(t), limits.clock_of(line.first)
      local key = group and limits.group_key(line, group) or line.key
      local tag = call('ZSCORE', key, t[NAME])
      local group_before = group_in(before)
      if group_before ~= group then
        limits.remove_from(line, t[NAME], group_before and limits.group_key(line, group_before) or line.key, group_before)
      elseif tag then
        local virtual = group and tonumber(call('HGET', LINE_GROUPS .. line.id, group) or nil) or clock.virtual
        call('ZADD', key, exact(math.min(tonumber(tag), virtual + (clock.average or 1) / t[WEIGHT])), t[NAME])
      end
    end)
    lanes.changed[t[NAME]] = true
  end

  local function look_again(kind, set)
    if call('ZADD', LINES .. kind, 'XX', 'LT', 'CH', integer(shard.ms), set) == 1 then limits.woken[kind] = true end
  end

  -- Lets the lines of limits that were given back look again, and those from which tasks are taken away.
  local function reopen()
    for name in pairs(limits.returned) do
      for _, line in ipairs(name:find('\31', 1, true) and {} or limits.lines_of(name)) do look_again(line.kind, line.set) end
    end
    for set in pairs(limits.withdrawn) do
      for _, kind in ipairs(lanes.kinds) do look_again(kind, set) end
    end
  end

  local function save_held()
    local times, free = {}, {}
    for name, till in pairs(held) do
      times[#times + 1], times[#times + 2] = till < math.huge and integer(till) or '+inf', name
      freed[name] = nil
    end
    for name in pairs(freed) do free[#free + 1] = name end
    write_all('ZADD', HELD_BACK, times)
    write_all('ZREM', HELD_BACK, free)
  end

  -- Writes the lines of tenants that have changed. To be called before `lanes.save`.
  function limits.save_lines()
    reopen()
    if limits.write_plan then limits.write_plan() end
    local lines, members, works, any_held = {}, {}, {}, call('EXISTS', HELD_BACK) == 1
    for name in pairs(lanes.changed) do
      local waits = tenants[name] and each_line(name, function(id, kind, set, has_tasks)
        if not lines[id] then lines[id], members[id], works[id] = limits.line_of(kind, set), {}, {} end
        if works[id][name] == nil then table.insert(members[id], name) end
        works[id][name] = works[id][name] or has_tasks
      end)
      if waits and any_held then freed[name] = true end
    end
    for id, line in pairs(lines) do save_line(line, members[id], works[id]) end
    save_held()
    for name, clock in pairs(clocks) do
      if clock.changed and call('EXISTS', LINES_OF .. name) == 1 then -- else nobody waits
        call('HSET', LIMIT_CLOCKS, name, struct.pack('>dd', clock.virtual, clock.average))
      end
    end
    limits.save()
  end

  -- Wakes a runtime of each kind that has to look at a line, or has to learn until when a tenant is held back; and those
  -- with tenants of their own.
  function limits.wake()
    for kind in pairs(limits.woken) do wake_kind(idle_of(kind)) end
    if next(limits.woken) and has_dedicated then wake_homes(limits.woken) end
  end
end

if limits and not limits.save_lines then open_lines() end
