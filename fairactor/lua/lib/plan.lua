-- Which tasks limits let start in a turn: planned before the turn chooses, in the order of the lines.
--
-- A tenant with a planned task stands on the ring beside those whose tasks need no limit, so planned tasks compete with
-- these for workers. What was planned and did not start is taken back; its tenant keeps its place on the ring.

-- @include lib/base.lua
-- @takes lanes, limits from lib/lanes.lua
-- @takes tenants, TAG, LEAVES, LIMITS, OUTER from lib/ring.lua
-- @takes load_tags, join_ring from lib/ring.lua
-- @takes home_time, names_in from lib/homes.lua
-- @takes eligibility, NONE from lib/policy.lua
-- @takes read_mailbox, by_place from lib/claim.lua
-- @takes lane_queues from lib/queues.lua

local function open_plan()
  local MOST_LINES = 16 -- lines that one turn looks at; it says that there are more
  local OVERDUE = 1000 -- ms after which a line that is due should be looked at
  local FIRST_TENANTS, MORE_TENANTS, MOST_TENANTS = 8, 50, 300 -- of a line
  local MOST_STEPS = 60 -- tasks that one turn plans, and tenants that it leaves out; those for whom no slot is free cost less
  local STEPS_WITHOUT_SLOT = 1 / 3
  local FIRST_TASKS = 4 -- of a tenant in a line
  local NO_COSTS = setmetatable({}, { __index = function() return 0 end }) -- is anything left at all?
  local planned = {} -- task -> what is planned
  local tasks_of = {} -- tenant -> its planned tasks
  local left = {} -- tenant -> how many of them have not started
  local looked_at, shut = {}, {} -- lines; line -> ms until when, or math.huge
  local heads = {} -- line, tenant -> the first tasks of the tenant in the line
  local full = false -- whether there is more than was wanted
  local next_due -- the ms since when the first line that was not looked at is due, if there is one
  local steps, cut_short = 0, false -- whether it stopped at MOST_STEPS
  local frees_lines = false -- whether tenants that it left out leave their lines

  function limits.planned(name) return tasks_of[name] end
  function limits.has_planned(name) return (left[name] or 0) > 0 end
  function limits.waits() return full end

  -- Notes that a planned task starts. Returns what its start takes.
  function limits.start(id, name)
    local plan = planned[id]
    if not plan then return false end
    plan.started, left[name] = true, left[name] - 1
    return plan.taken
  end

  -- @include lib/line_front.lua

  -- Returns the next task of a tenant in a line that is not planned, or nil.
  local function next_task(line, name)
    local own = line.id .. name
    local head = heads[own] or { at = 0, asked = 0, tasks = {} }
    heads[own] = head
    while head.at == #head.tasks and head.asked <= #head.tasks do
      head.asked = math.max(FIRST_TASKS, 2 * head.asked)
      local all = {}
      for lane in pairs(lanes.box_of(name, true)) do
        if limits.set_of(lane) == line.set and lanes.serves(line.kind, lane) then
          local key = mailbox(name, lane)
          read_mailbox(all, key, lane_queues[key] or NONE, 0, head.asked, lane)
        end
      end
      table.sort(all, by_place)
      for i = head.asked + 1, #all do all[i] = nil end
      if #all == #head.tasks then return nil end
      head.tasks = all
    end
    return head.tasks[head.at + 1], head
  end

  -- How many tasks of a tenant its own settings let start now.
  local function startable(t)
    local own = t[LIMITS]
    if not own then return math.huge end
    if eligibility(own) ~= true then return 0 end
    local by_rate = own.interval > 0
      and math.floor((shard.now + own.tolerance - math.max(own.due, shard.now)) / own.interval) + 1 or math.huge
    return math.min(own.concurrency - own.started, by_rate)
  end

  -- Plans the next task of a line. Returns whether it did; if not, the line may have others.
  local function plan_next(line, has_room)
    local group, ring = nil, line
    local entry = first_of(line, line)
    if entry and entry.group then
      group, ring = entry, entry
      if not group.front then load_group(line, group) end
      entry = first_of(line, group)
      if not entry then
        table.remove(line.front, 1)
        return false
      end
    end
    if not entry then
      line.closed = true
      return false
    end
    local left_at_all = limits.opens(line.set, NO_COSTS)
    if left_at_all ~= true then
      line.closed, line.blocked = true, NO_COSTS
      return false
    end
    local function leave_out()
      table.remove(ring.front, 1)
      ring.served = ring.served + 1
      return false
    end
    local name, t = entry.name, tenants[entry.name]
    local is_there = limits.group_in(t) == (group and group.group) -- or its group has changed
    local task, head
    if is_there then task, head = next_task(line, name) end
    if not task then
      if not entry.planned then
        line.gone[#line.gone + 1] = { name = name, key = ring.key, group = group and group.group }
        frees_lines = true
      end
      return leave_out()
    end
    if not lanes.is_sorted(task.place) then lanes.changed[name] = true end -- others of the tenant may belong in other lines now
    if (left[name] or 0) >= startable(t) then return leave_out() end
    local costs = limits.costs_in(lanes.route_in(call('GETRANGE', TASK .. task.id, 0, 4095)))
    local own = limits.opens_for(line.set, costs, name)
    if own ~= true then
      limits.hold(line, name, own)
      frees_lines = true
      return leave_out()
    end
    if limits.opens(line.set, costs) ~= true then
      line.closed, line.blocked = true, costs
      return false
    end
    if not has_room(task) then
      steps = steps - 1 + STEPS_WITHOUT_SLOT
      return leave_out()
    end
    local cost = costs[line.first] or 1
    planned[task.id] = { line = line, entry = entry, group = group, tag = (group or entry).tag, inner_tag = entry.tag,
      cost = cost, taken = limits.take(line.set, costs, name) }
    head.at = head.at + 1
    tasks_of[name] = tasks_of[name] or {}
    table.insert(tasks_of[name], task)
    left[name] = (left[name] or 0) + 1
    entry.planned, entry.tag = true, entry.tag + cost / entry.weight
    table.remove(ring.front, 1)
    insert_by_tag(ring.front, entry)
    ring.served = ring.served + 1
    if group then
      group.tag = group.tag + cost / group.weight
      table.remove(line.front, 1)
      insert_by_tag(line.front, group)
      line.served = line.served + 1
    end
    return true
  end

  -- Returns the open line whose first tenant is next, of those with the same first limit.
  local function next_line(lines)
    local best
    for _, line in ipairs(lines) do
      local entry = not line.closed and first_of(line, line)
      if not line.closed and not entry then line.closed = true end
      if entry and (not best or entry.tag < best.front[1].tag) then best = line end
    end
    return best
  end

  -- Returns, by line, the tenants without a group that come to it in this script.
  local function fresh_tenants()
    local fresh = {}
    for name in pairs(lanes.changed) do
      local t = tenants[name]
      for lane, n in pairs(t and not t[OUTER].group and lanes.box_of(name, true) or NONE) do
        local set = n > 0 and lanes.serves(shard.kind, lane) and limits.set_of(lane)
        if set then
          fresh[set] = fresh[set] or {}
          fresh[set][name] = true
        end
      end
    end
    return fresh
  end

  -- Finds the lines of the runtime's kind that a turn has to look at: those that are due, then those of limits that let more
  -- start now, and those that are new. What it leaves, another turn finds due.
  local function find_lines()
    local due = call('ZRANGEBYSCORE', LINES .. shard.kind, '-inf', integer(shard.ms), 'WITHSCORES', 'LIMIT', 0, MOST_LINES + 1)
    local sets, seen = {}, {}
    local function look_at(set)
      if seen[set] then return end
      if #sets < MOST_LINES then sets[#sets + 1], seen[set] = set, true else next_due = next_due or shard.ms end
    end
    for i = 1, math.min(#due, 2 * MOST_LINES), 2 do look_at(due[i]) end
    next_due = tonumber(due[2 * MOST_LINES + 2])
    for name in pairs(limits.returned) do
      for _, line in ipairs(not next_due and not name:find('\31', 1, true) and limits.lines_of(name) or NONE) do
        if line.kind == shard.kind then look_at(line.set) end
      end
    end
    local fresh = fresh_tenants()
    for set in pairs(fresh) do
      if not seen[set] and not call('ZSCORE', LINES .. shard.kind, set) then look_at(set) end
    end
    limits.load(sets, NONE)
    for _, set in ipairs(sets) do
      local line = limits.line_of(shard.kind, set)
      local opens = limits.opens(set, NO_COSTS)
      if opens == true then
        line.gone, line.fresh = {}, fresh[set] or {}
        looked_at[#looked_at + 1] = line
      else
        shut[line.set] = opens or math.huge
      end
    end
  end

  -- Plans up to `most` tasks: of all tenants, or of some.
  local function plan_of(names, most, has_room)
    local by_first, firsts, number = {}, {}, 0
    if not names then load_fronts(looked_at) end
    for _, line in ipairs(looked_at) do
      line.closed = line.blocked and true
      if names and not line.closed then load_front_of(line, names) end
      if not by_first[line.first] then by_first[line.first], firsts[#firsts + 1] = {}, line.first end
      table.insert(by_first[line.first], line)
    end
    local at, idle, tries = 0, 0, math.ceil(MOST_STEPS / math.max(#firsts, 1)) -- all have a turn
    local function plan_one(lines)
      local line, tried = next_line(lines), 0
      while line and tried < tries and steps < MOST_STEPS do
        steps, tried = steps + 1, tried + 1
        if plan_next(line, has_room) then return true end
        line = next_line(lines)
      end
      if line and tried == tries then idle = 0 end
      cut_short = cut_short or steps >= MOST_STEPS
    end
    while number < most and idle < #firsts and not cut_short do
      at, idle = at % #firsts + 1, idle + 1
      if plan_one(by_first[firsts[at]]) then number, idle = number + 1, 0 end
    end
    full = number == most
    return number
  end

  -- Returns how many tasks a turn claims at most that wants `n`: if not all that may start is planned, so few that the planned
  -- ones do not end before their tenants have had their shares.
  function limits.most_claims(n) return cut_short and math.min(n, MOST_STEPS) or n end

  -- Brings the tenants of planned tasks onto the ring, and those that waited in a line although no limit is left.
  local function join_rings()
    local names = {}
    for name in pairs(tasks_of) do names[#names + 1] = name end
    for _, line in ipairs(looked_at) do
      for _, left_by in ipairs(line.gone) do
        local name = left_by.name
        local own = tenants[name][LIMITS]
        if lanes.works(name, shard.kind) and (not own or eligibility(own) == true) then names[#names + 1] = name end
      end
    end
    load_tags(names)
    for _, name in ipairs(names) do
      local t = tenants[name]
      t[LEAVES] = false
      if not t[TAG] then
        join_ring(t, name)
      elseif t[TAG] < t[OUTER].virtual then -- it waited for its limits, so it does not catch up
        t[TAG] = t[OUTER].virtual
        table.insert(t[OUTER].changed, t)
      end
    end
  end

  -- Plans what a runtime may start, at most `most` tasks. `has_room` says whether there is a slot for a task.
  function limits.plan(runtime, most, has_room)
    if most < 1 then
      full = call('ZCOUNT', LINES .. shard.kind, '-inf', integer(shard.ms)) > 0
      return
    end
    find_lines()
    if #looked_at == 0 then return end
    if not home_time(runtime) then
      plan_of(nil, most, has_room)
    else
      local number = plan_of((names_in(ASSIGNED .. runtime)), most, has_room)
      local others = number < most and (names_in(STEAL .. runtime)) or NONE
      if others[1] == '' then
        plan_of(nil, most - number, has_room)
      elseif #others > 0 then
        plan_of(others, most - number, has_room)
      end
    end
    join_rings()
  end

  -- Takes back what has not started. To be called after the turn has chosen, before it writes; `claims_any` says whether it
  -- chose anything. Returns whether another turn may start more at once: in place of what was taken back, or from lines at
  -- which this turn did not look. Turns that get no further end after all lines were looked at.
  function limits.settle_plan(claims_any)
    local took_back = false
    for _, plan in pairs(planned) do
      if not plan.started then
        took_back = true
        limits.untake(plan.taken)
        limits.unhold(plan.line, plan.entry.name)
      else
        plan.entry.charge = plan.entry.charge + plan.cost / plan.entry.weight
        limits.advance(plan.line.first, plan.tag, plan.cost)
        if plan.group then
          plan.group.charge = plan.group.charge + plan.cost / plan.group.weight
          plan.group.virtual = math.max(plan.group.virtual, plan.inner_tag)
        end
      end
    end
    for _, line in ipairs(looked_at) do
      local opens = not line.blocked or limits.opens(line.set, line.blocked)
      if opens ~= true then shut[line.set] = opens or math.huge end
    end
    local gets_further = claims_any or next(shut)
    return took_back and claims_any or next_due and (gets_further or next_due < shard.ms - OVERDUE)
      or cut_short and (claims_any or frees_lines)
  end

  local function charge(key, entry, name)
    call('ZADD', key, 'XX', 'INCR', exact(entry.charge), name)
  end

  -- Charges what was served in a line, in all lines with the same first limit.
  local function write_charges()
    local done, by_first = {}, {}
    for _, plan in pairs(planned) do
      local first = plan.line.first
      if plan.started and not by_first[first] then
        by_first[first] = {}
        for _, line in ipairs(limits.lines_of(first)) do
          if line.first == first then by_first[first][line.id] = line end
        end
      end
      if plan.started then by_first[first][plan.line.id] = plan.line end
      for _, line in pairs(plan.started and not done[plan.entry] and by_first[first] or NONE) do
        local key = plan.group and limits.group_key(line, plan.group.group) or line.key
        if plan.entry.joins_at and line == plan.line then call('ZADD', key, 'NX', exact(plan.entry.joins_at), plan.entry.name) end
        charge(key, plan.entry, plan.entry.name)
        if plan.group and not done[plan.group] then charge(line.key, plan.group, plan.group.name) end
      end
      if plan.started then
        done[plan.entry] = true
        if plan.group then
          done[plan.group] = true
          call('HSET', LINE_GROUPS .. plan.line.id, plan.group.group, exact(plan.group.virtual))
        end
      end
    end
  end

  -- Writes what has become of the lines. It stands before the tenants that have changed are brought into them.
  function limits.write_plan()
    write_charges()
    for _, line in ipairs(looked_at) do
      for _, left_by in ipairs(line.gone) do
        limits.remove_from(line, left_by.name, left_by.key, left_by.group)
        lanes.changed[left_by.name] = true
      end
      call('ZADD', LINES .. line.kind, 'XX', integer(shard.ms), line.set)
    end
    for set, till in pairs(shut) do
      call('ZADD', LINES .. shard.kind, 'XX', till < math.huge and integer(till) or '+inf', set)
    end
  end
end

-- Plans what limits let a runtime start, at most `want` tasks, and of each kind of slot as many as there is room for. If there
-- is none for a task, it calls `note_no_room` with the kind and the lane.
local function plan(runtime, want, room, kind_of_task, note_no_room)
  local free = {}
  for kind, number in ipairs(room or NONE) do free[kind] = number end
  open_plan()
  limits.plan(runtime, want, function(task)
    if not kind_of_task then return true end
    local kind = kind_of_task(task.id)
    free[kind] = free[kind] - 1
    if free[kind] < 0 then note_no_room(kind, task.lane) end
    return free[kind] >= 0
  end)
end
