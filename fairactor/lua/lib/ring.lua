-- The ring: which tenants can be served now, and in what order.
--
-- Selection is self-clocked fair queuing (Golestani 1994): the ring holds the finish tag of each tenant's next task,
-- the lowest is served, and virtual time is the tag served last. Serving a tenant adds cost / weight to its tag; one
-- that arrives gets virtual time plus cost / weight, so it waits its turn, and gains nothing by draining and coming
-- back. No tenant's last tag is ever ahead of virtual time, so none is remembered. A tenant is on the ring exactly when
-- its mailbox is not empty and no limit keeps it off.
--
-- The tenants of a group have their own ring, and the group stands for them on the shard's ring.

-- @include lib/policy.lua
-- @include lib/homes.lua
-- @include lib/cost.lua

-- An entry of a ring, a tenant or a group, is an array, not a table of named fields: half the allocations, where
-- scripts spend their time.
local NAME, WEIGHT = 1, 2
local TAG, STORED = 3, 4 -- its new tag, and the one on the ring; false: none
local HEAD, TAKEN, AHEAD = 5, 6, 7 -- the first ids of its mailbox, how many are claimed, how many were asked for
local LEAVES = 8
local LIMITS = 9 -- what can keep a tenant off the ring; false: nothing
local OUTER, INNER = 10, 11 -- the ring it stands on, and the ring of a group
local PASSED = 12 -- whether this turn passes it over; nil: no
local STUCK = 13 -- how many of the first ids that are not claimed cannot start in this turn; nil: none

local GROUP_BYTE = 255 -- precedes the name of a group; no tenant's name begins with it, since it is not UTF-8

local function new_ring(key, virtual)
  return { key = key, virtual = virtual, changed = {}, updates = {}, removals = {} } -- changed: joining or moving
end

local root = new_ring(shard.ring, shard.virtual)
local tenants, groups = {}, {}
local debtors = {} -- entries charged a wrong cost

local function group_of(name)
  local group = groups[name]
  if not group then
    local member = string.char(GROUP_BYTE) .. name
    local tag = tonumber(call('ZSCORE', root.key, member)) or false
    group = { member, policy_of(member).weight or 1, tag, tag, false, 0, 0, false, false, root, false }
    group[INNER] = new_ring(shard.group .. name, tonumber(call('HGET', shard.groups, name)) or 0)
    group[INNER].group = group
    groups[name] = group
  end
  return group
end

local function new_tenant(name, policy)
  local t = { name, 1, false, false, false, 0, 0, false, false, root, false }
  if policy then
    t[WEIGHT], t[LIMITS] = policy.weight or defaults.weight or 1, limits_in(policy)
    if policy.group then t[OUTER] = group_of(policy.group)[INNER] end
  end
  tenants[name] = t
  return t
end

-- To be called before any count changes.
local function load_tenants(names)
  local policies, limited, limits = has_policies and read_all('HMGET', POLICY, names), {}, {}
  for i, name in ipairs(names) do
    if not tenants[name] then
      local t = new_tenant(name, policies and (policies[i] and cmsgpack.unpack(policies[i]) or NONE))
      if t[LIMITS] then limited[#limited + 1], limits[#limits + 1] = name, t[LIMITS] end
    end
  end
  if #limited > 0 then load_usage(limited, limits) end
end

-- Counts a task that stops running. If it was charged a wrong cost, the tenant owes the difference.
local function count_end(name, too_little)
  local t = tenants[name]
  if t and t[LIMITS] then t[LIMITS].started = t[LIMITS].started - 1 end
  if too_little and too_little ~= 0 then
    debtors[t] = true
    add_debt(t[NAME], too_little)
    local group = t[OUTER].group
    if group then
      debtors[group] = true
      add_debt(group[NAME], too_little)
    end
  end
end

-- Returns the tenants without limits, and those of them with queued tasks.
local function without_limits(names)
  local unlimited, waiting = {}, {}
  for _, name in ipairs(names) do
    if not tenants[name][LIMITS] then
      unlimited[#unlimited + 1] = name
      if lanes and lanes.waits(name) or not lanes and call('EXISTS', QUEUE .. name) == 1 then waiting[#waiting + 1] = name end
    end
  end
  return unlimited, waiting
end

-- Counts `n` tasks that leave a tenant's mailbox, in a lane, unclaimed.
local function count_withdrawn(name, n, lane)
  local t = tenants[name]
  if lanes and n > 0 then lanes.add(name, lane, -n) end
  if limits and n > 0 then limits.note_withdrawn(name, lane) end
  if t[LIMITS] then
    t[LIMITS].queued = t[LIMITS].queued - n
  elseif lanes then
    t[LEAVES] = not lanes.works(name, shard.kind)
  else
    t[LEAVES] = call('ZCARD', QUEUE .. name) <= n
  end
end

-- Returns the virtual time that counts for an entry.
local function time_for(t, tenant) return t[OUTER] == root and dedicated_time(tenant) or t[OUTER].virtual end

-- Gives a tag to an entry that joins its ring; a group joins with its first tenant.
local function join_ring(t, tenant)
  local ring = t[OUTER]
  t[TAG] = time_for(t, tenant) + arrival_cost(t[NAME]) / t[WEIGHT]
  ring.changed[#ring.changed + 1] = t
  if ring.group and not ring.group[TAG] then join_ring(ring.group, tenant) end
end

local function load_tags(names)
  local by_ring = has_policies and {} or { [root] = names }
  for _, name in ipairs(has_policies and names or {}) do
    local ring = tenants[name][OUTER]
    by_ring[ring] = by_ring[ring] or {}
    table.insert(by_ring[ring], name)
  end
  for ring, members in pairs(by_ring) do
    for i, stored in ipairs(read_all('ZMSCORE', ring.key, members)) do
      local t = tenants[members[i]]
      t[STORED] = stored and tonumber(stored)
      t[TAG] = t[TAG] or t[STORED]
    end
  end
end

local function pay_debts()
  for t in pairs(debtors) do
    local costs = costs_of(t[NAME])
    if t[STORED] and costs.debt ~= 0 then
      t[TAG] = t[TAG] + costs.debt / t[WEIGHT]
      costs.debt = 0
      if t[TAG] ~= t[STORED] then table.insert(t[OUTER].changed, t) end
    end
  end
end

-- Returns what stands for a tenant on the shard's ring: its group, or itself.
local function root_entry(name) return tenants[name][OUTER].group or tenants[name] end

-- Clamps the tags of tenants whose dedicated runtimes change to `new_time`, the time of their new one, or to that of
-- what still serves them: ahead of it they would starve, behind it they would take everything.
local function clamp_tags(names, new_time)
  load_tenants(names)
  load_tags(names)
  for _, name in ipairs(names) do
    local top = root_entry(name)
    local time = new_time or dedicated_time(name) or root.virtual
    if top[STORED] and not top[LEAVES] then
      top[TAG] = math.min(math.max(top[TAG], time), time + average_cost(top[NAME]) / top[WEIGHT])
    end
  end
end

-- Decides which tenants join or leave the ring: `arriving`, whose mailboxes got tasks, and all with limits. Only reads.
local function update_ring(arriving)
  local names, limited = arriving, {}
  for name, t in pairs(has_policies and tenants or NONE) do
    if t[LIMITS] then limited[#limited + 1] = t end
  end
  if #limited > 0 or next(debtors) then
    names = {}
    for i, name in ipairs(arriving) do names[i] = name end
    for _, t in ipairs(limited) do names[#names + 1] = t[NAME] end
    for t in pairs(debtors) do
      if not t[INNER] then names[#names + 1] = t[NAME] end
    end
  end
  load_tags(names)
  pay_debts()
  for _, name in ipairs(arriving) do
    local t = tenants[name]
    if not lanes or lanes.concerns(name, shard.kind) and lanes.works(name, shard.kind) then
      t[LEAVES] = false -- its old tasks may be gone, but new ones have come
      if t[TAG] then shard.grows = arriving elseif not t[LIMITS] then join_ring(t, name) end
    end
    if lanes then lanes.changed[name] = true end
  end
  for _, t in ipairs(limited) do
    local limits = t[LIMITS]
    local eligible = eligibility(limits)
    limits.throttled, limits.checked = eligible ~= true and eligible, true
    local belongs = eligible == true and (not lanes or lanes.works(t[NAME], shard.kind))
    t[LEAVES] = not belongs and t[STORED] and true
    if belongs and not t[TAG] then join_ring(t, t[NAME]) end
    if lanes then lanes.changed[t[NAME]] = true end
  end
end

-- @include lib/kinds.lua

local save_rings, save_shard
do
  -- Notes the change of an entry. Returns whether it joins its ring.
  local function note_change(t)
    local ring = t[OUTER]
    if t[LEAVES] then
      ring.removals[#ring.removals + 1] = t[NAME]
    elseif t[TAG] ~= t[STORED] then
      ring.updates[#ring.updates + 1], ring.updates[#ring.updates + 2] = t[TAG], t[NAME]
      return not t[STORED]
    end
  end

  local function write_ring(ring)
    write_all('ZADD', ring.key, ring.updates)
    write_all('ZREM', ring.key, ring.removals)
  end

  -- Writes the rings of groups. A group with an empty ring leaves, and its virtual time goes.
  local function write_groups()
    for name, group in pairs(groups) do
      local inner = group[INNER]
      write_ring(inner)
      if call('ZCARD', inner.key) == 0 then
        call('HDEL', shard.groups, name)
        group[LEAVES] = true
      else
        call('HSET', shard.groups, name, exact(inner.virtual))
      end
      note_change(group)
    end
  end

  -- Writes the state of limits. Returns the tenants for which a runtime has to learn of a new time.
  local function write_limits()
    local dues, throttled, free, to_watch = {}, {}, {}, {}
    for name, t in pairs(has_policies and tenants or NONE) do
      local limits = t[LIMITS]
      if limits and limits.due > shard.now then dues[#dues + 1], dues[#dues + 2] = integer(limits.due), name end
      if limits and limits.throttled then
        throttled[#throttled + 1], throttled[#throttled + 2] = integer(limits.throttled), name
      elseif limits and limits.checked then
        free[#free + 1] = name
      end
    end
    write_all('ZADD', RATES, dues)
    for i = 1, #throttled, 2 do
      if call('ZADD', THROTTLED, 'CH', throttled[i], throttled[i + 1]) == 1 then
        to_watch[#to_watch + 1] = throttled[i + 1]
      end
    end
    write_all('ZREM', THROTTLED, free)
    return to_watch
  end

  -- Writes the rings and the limits. Returns the tenants that joined a ring, those of `write_limits`, and those that joined
  -- rings of other kinds.
  function save_rings()
    local joined = {}
    for name, t in pairs(tenants) do
      if note_change(t) then joined[#joined + 1] = name end
    end
    write_groups()
    write_ring(root)
    local throttled = write_limits()
    save_costs()
    if lanes and not lanes.save_rings then open_kinds() end
    return joined, throttled, lanes and lanes.save_rings()
  end

  -- Writes all changes, ends a busy period, and what `begin_writing` began. Then wakes runtimes for tenants that
  -- joined, or if there was `more` to claim than was wanted. A tenant that waits already may have got the first task that
  -- can start in one that rests because its slots of some kind are full. Returns whether there is more.
  function save_shard(more)
    local joined, throttled, joined_elsewhere = save_rings()
    local empty = (more or #root.removals > 0) and call('ZCARD', root.key) == 0
    if empty then -- nobody waits: virtual time restarts
      root.virtual, shard.period = 0, shard.period + 1
      restart_homes(shard.kind)
    end
    save_clock()
    if shard.has_larger then call('HSET', META, 'largest', integer(shard.largest)) end
    save_unindexed()
    call('HSET', META, 'stamp', integer(shard.stamp), 'virtual' .. shard.suffix, exact(root.virtual),
      'period' .. shard.suffix, shard.period, 'total', pack_counts(total), 'torn', '')
    if shard.reports_throttled then throttled = NONE end
    if limits then limits.wake() end
    local grows = (shard.grows or lanes and next(lanes.arrived)) and call('EXISTS', IDLE_SLOTS) == 1
    local wakes = not empty and (#joined > 0 or more) or grows and shard.grows
    if joined_elsewhere then
      lanes.wake(wakes, joined_elsewhere, grows)
      if #throttled > 0 then wake_idle() end
    elseif wakes or #throttled > 0 then
      wake_idle()
    end
    if #joined > 0 then wake_dedicated(joined) end
    if grows and not joined_elsewhere then wake_dedicated(shard.grows) end
    if #throttled > 0 then wake_dedicated(throttled) end
    if was_busy and live(total) == 0 then call('PUBLISH', EVENTS, 'd') end
    return more and not empty
  end
end

-- @scope
