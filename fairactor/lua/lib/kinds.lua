-- The rings of the kinds of runtimes for which a script does not act.
--
-- Runtimes with the same actors and queues are of one kind. Each kind has a ring with the tenants that have work for it,
-- and a virtual time of its own, since kinds work at different speeds: what a tenant gets from another kind does not count.

-- @include lib/base.lua
-- @include lib/lines.lua
-- @takes lanes, limits from lib/lanes.lua
-- @takes tenants, NAME, WEIGHT, LIMITS, TAKEN, OUTER, GROUP_BYTE from lib/ring.lua
-- @takes has_dedicated, dedicated_time, restart_homes, wake_kind, wake_dedicated, idle_of from lib/homes.lua
-- @takes eligibility, policy_of from lib/policy.lua
-- @takes average_cost from lib/cost.lua

local function open_kinds()
  -- Returns the key of the ring of a kind on which a tenant stands, and its group.
  local function ring_for(kind, t)
    local group = t[OUTER].group and t[OUTER].group[NAME]:sub(2)
    if not group then return kind == '0' and RING or KIND_RING .. kind end
    return (kind == '0' and GROUP or KIND_GROUP .. kind .. ':') .. group, group
  end

  local function clock_of(kind, of_groups)
    return (of_groups and GROUPS or 'virtual') .. (kind == '0' and '' or ':' .. kind)
  end

  -- Writes the entry of a group on the ring of a kind, whose own ring may have become empty or not.
  local function save_group(kind, group, existed, virtual, cost)
    local ring, member = kind == '0' and RING or KIND_RING .. kind, string.char(GROUP_BYTE) .. group
    local groups_key = clock_of(kind, true)
    local exists = call('EXISTS', (kind == '0' and GROUP or KIND_GROUP .. kind .. ':') .. group) == 1
    if exists and not existed then
      local policy = policy_of(member)
      call('ZADD', ring, exact(virtual + cost / (policy.weight or 1)), member)
      call('HSETNX', groups_key, group, 0)
    elseif existed and not exists then
      call('ZREM', ring, member)
      call('HDEL', groups_key, group)
    end
  end

  -- Lets the virtual time of a kind restart, because nobody waits.
  local function restart(kind)
    call('HSET', META, clock_of(kind), 0)
    call('HINCRBY', META, 'period' .. (kind == '0' and '' or ':' .. kind), 1)
    restart_homes(kind)
  end

  -- Brings the tenants that have changed onto the ring of a kind, or off it. Returns those that have joined.
  local function save_ring(kind, names)
    local joined, by_key, groups_in, removed, concerned = {}, {}, {}, false, {}
    local virtual = tonumber(call('HGET', META, clock_of(kind))) or 0
    for _, name in ipairs(names) do
      if tenants[name][LIMITS] or lanes.concerns(name, kind) then concerned[#concerned + 1] = name end
    end
    for _, name in ipairs(concerned) do
      local key, group = ring_for(kind, tenants[name])
      by_key[key] = by_key[key] or {}
      table.insert(by_key[key], name)
      groups_in[key] = group
    end
    for key, members in pairs(by_key) do
      local group, additions, removals = groups_in[key], {}, {}
      local time = group and tonumber(call('HGET', clock_of(kind, true), group) or 0) or virtual
      local existed = group and call('EXISTS', key) == 1
      for i, stored in ipairs(read_all('ZMSCORE', key, members)) do
        local name, t = members[i], tenants[members[i]]
        local belongs = lanes.works(name, kind) and (not t[LIMITS] or eligibility(t[LIMITS]) == true)
        if belongs and not stored then
          local from = not group and has_dedicated and dedicated_time(name, kind, virtual) or time
          additions[#additions + 1], additions[#additions + 2] = exact(from + average_cost(name) / t[WEIGHT]), name
          joined[#joined + 1] = name
        elseif stored and not belongs then
          removals[#removals + 1], removed = name, true
        end
      end
      write_all('ZADD', key, additions)
      write_all('ZREM', key, removals)
      if group then save_group(kind, group, existed, virtual, average_cost(string.char(GROUP_BYTE) .. group)) end
    end
    if removed and call('EXISTS', kind == '0' and RING or KIND_RING .. kind) == 0 then restart(kind) end
    return joined
  end

  -- Makes the changed policy of a tenant or a group count on the rings of the other kinds, too: a greater weight at once.
  -- `before` is the entry with the policy before; a tenant may leave a group.
  function lanes.save_policy(t, before)
    if limits and limits.save_policy then limits.save_policy(t, before) end
    for i = 2, #lanes.kinds do
      local kind, name = lanes.kinds[i], t[NAME]
      local virtual = tonumber(call('HGET', META, clock_of(kind))) or 0
      local key, group = ring_for(kind, t)
      local key_before, group_before = ring_for(kind, before)
      local tag = call('ZSCORE', key, name)
      if key_before ~= key then
        if call('ZREM', key_before, name) == 1 and group_before then save_group(kind, group_before, true, virtual, 0) end
      elseif tag then
        local time = group and tonumber(call('HGET', clock_of(kind, true), group) or 0)
          or dedicated_time(name, kind, virtual) or virtual
        call('ZADD', key, exact(math.min(tonumber(tag), time + average_cost(name) / t[WEIGHT])), name)
      end
    end
  end

  -- Writes the rings of the other kinds, and which lanes the tenants have tasks in. Returns by kind who has joined.
  function lanes.save_rings()
    local names, joined = {}, {}
    lanes.have_written()
    for name, t in pairs(tenants) do -- any start may have used up a limit
      if lanes.changed[name] or t[LIMITS] and (t[LIMITS].checked or t[TAKEN] > 0) then names[#names + 1] = name end
    end
    for i = 2, #lanes.kinds do
      local kind = lanes.kinds[i]
      if #names > 0 then joined[kind] = save_ring(kind, names) end
    end
    if limits then limits.save_lines() end
    lanes.save()
    return joined
  end

  -- Whether a kind serves a lane that none of the kinds in `woken` serves.
  local function is_added(kind, lane, woken)
    local served = not lanes.serves(kind, lane)
    for i = 1, served and 0 or #woken do served = served or lanes.serves(woken[i], lane) end
    return not served
  end

  -- Whether a kind serves such a lane with tasks of one of the tenants.
  local function adds(kind, names, woken)
    local function is_new(lane) return is_added(kind, lane, woken) end
    for _, name in ipairs(names) do
      if lanes.any(name, is_new) then return true end
    end
    return false
  end

  -- Likewise, a lane that gets a task here.
  local function adds_arrived(kind, woken)
    for _, arrived in pairs(lanes.arrived) do
      for lane in pairs(arrived) do
        if is_added(kind, lane, woken) then return true end
      end
    end
    return false
  end

  -- Wakes runtimes for tenants that have joined, as few as serve all their lanes. `wakes`: one of the kind for which the
  -- script acts has to wake. `grows`: so has one of those that serve what arrives, whoever has joined.
  function lanes.wake(wakes, joined_elsewhere, grows)
    local woken = {}
    if wakes and wake_kind(shard.idle) then woken[1] = shard.kind end
    for i = 2, #lanes.kinds do
      local kind = lanes.kinds[i]
      local names = joined_elsewhere[kind] or {}
      local wakes_it = adds(kind, names, woken) or grows and adds_arrived(kind, woken)
      if wakes_it and wake_kind(idle_of(kind)) then woken[#woken + 1] = kind end
      if #names > 0 then wake_dedicated(names) end
    end
    local growing = {}
    for name in pairs(grows and lanes.arrived or {}) do growing[#growing + 1] = name end
    if #growing > 0 then wake_dedicated(growing) end
  end
end

if lanes then open_kinds() end
