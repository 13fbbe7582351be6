-- Settles the outcomes that a turn reports: which of them count, and what becomes of their tasks.

-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/delayed.lua
-- @include lib/lanes.lua
-- @include lib/budget.lua

local settle, write_retries, forget_claims, some_cancels
do
  local OUTCOME = '>c8c1ddHc0I4c0'
  local DOES_NOT_FIT = '"fairactor.errors.InvalidPayload","its arguments do not fit the actor here"' -- as in record.py
  local MOST_CANCELS = 200 -- claims to cancel that a turn tells its runtime
  local PUT_OFF = 1000 -- ms until a runtime claims a task whose actor it lacks again, if the shard has no lanes

  -- Parallel lists, with one entry for each outcome; `bodies` is where the record begins in the argument.
  local ids, turns, states, times, seconds, extras, bodies, marks = {}, {}, {}, {}, {}, {}, {}, {}
  local first
  local cannot_run = false -- whether the runtime cannot run some of the tasks

  local function record_of(n) return ARGV[n + first - 1]:sub(bodies[n]) end

  -- Returns what the tenant of a claim that has ended was charged too little.
  local function undercharge(n, name)
    local _, _, _, charged = struct.unpack(MARK, marks[n])
    if states[n] == 'B' or states[n] == 'U' or states[n] == 'V' then return -charged end
    local record = record_of(n)
    update_cost(name, readable(record) and actor_in(record, (select(7, struct.unpack(HEADER, record)))), seconds[n])
    return seconds[n] - charged
  end

  -- These are there only if the runtime cannot run some tasks.
  local lane_elsewhere, pass_on
  local function open_passing()
    -- Returns the lane of a task whose arguments do not fit the runtime's version of the actor, if others serve it.
    function lane_elsewhere(id)
      local lane = lanes.for_others(lanes.route_in(call('GETRANGE', TASK .. id, 0, 2400)))
      return not lanes.serves(shard.kind, lane) and lanes.served_elsewhere(lane) and lane
    end

    -- Puts a task back that its runtime cannot run, so that others do.
    function pass_on(id, name, lane, outcomes)
      local record = call('GETRANGE', TASK .. id, 0, 2400)
      local _, count, priority, attempt, stamp = nil, 0, 3, 1, shard.now
      if readable(record) then _, count, priority, attempt, stamp = struct.unpack(HEADER, record) end
      load_tenants({ name })
      if shard.compat then -- as runtimes do that know no lanes
        add(name, priority, -1)
        add(name, WAITING, 1)
        delay(name, id, shard.ms + PUT_OFF)
        table.insert(outcomes.retried, name)
      else
        if not lane then lanes.add_route(lanes.route_in(record)) end
        if lane then
          table.insert(outcomes.notes, id)
          table.insert(outcomes.notes, string.format('\n[%d,%.3f,0,%s,%s]', attempt, shard.now / 1e6,
            cjson.encode(ARGV[1]), DOES_NOT_FIT)) -- a line of the history, as record.py writes it
        end
        enqueue(name, id, stamp, priority, count, record, lane)
      end
    end
  end

  -- Returns the record of a task that goes back although it was to be canceled, which its runtime did not know; or nil.
  local function returned_record(n, elsewhere)
    local state, record = states[n], nil
    if state == 'R' then
      record = record_of(n)
    elseif state == 'B' or state == 'U' or elsewhere then -- the outcome has none, or its own
      record = call('GET', TASK .. ids[n])
    end
    return readable(record) and record
  end

  -- Settles an outcome that counts. `cancel` is the task's field of CANCELS.
  local function settle_one(n, name, cancel, outcomes)
    local id, state, ms, priority = ids[n], states[n], times[n], priority_in(marks[n])
    count_end(name, shard.by_time and undercharge(n, name))
    if limits then limits.give_back(marks[n], state == 'B' or state == 'U' or state == 'V') end
    local elsewhere = state == 'V' and lane_elsewhere(id)
    local record = cancel and returned_record(n, elsewhere)
    if record then
      add(name, priority, -1)
      cancel_task(id, name, record, cancel)
    elseif state == 'U' or elsewhere then
      pass_on(id, name, elsewhere, outcomes)
    elseif state == 'R' then
      add(name, priority, -1)
      add(name, WAITING, 1)
      table.insert(outcomes.retried, name)
      table.insert(outcomes.retries, { id = id, record = record_of(n) })
      delay(name, id, shard.ms + ms)
    elseif state == 'B' then
      local record, stamp, count, _ = call('GETRANGE', TASK .. id, 0, 2400), shard.now, 0
      if readable(record) then _, count, _, _, stamp = struct.unpack(HEADER, record) end
      load_tenants({ name })
      enqueue(name, id, stamp, priority, count, record)
      outcomes.returns_tasks = true
    else
      if state == 'V' then state = DEAD_STATE end -- no other runtime can run it either
      add(name, priority, -1)
      ms = record_ttl(id, state, ms)
      end_task(id, name, state, ms, (ms > 0 or shard.plugins) and record_of(n),
        extras[n] ~= '' and cmsgpack.unpack(extras[n]))
    end
  end

  -- Returns the tasks that a runtime has to cancel: all, or any 200 if they are more. It was told of each when it was canceled;
  -- this is for messages that were lost.
  function some_cancels(runtime)
    local number = call('HLEN', CANCELS .. runtime)
    if number == 0 then return NONE end
    return number <= MOST_CANCELS and call('HKEYS', CANCELS .. runtime) or call('HRANDFIELD', CANCELS .. runtime, MOST_CANCELS)
  end

  -- Unpacks some outcomes, and loads the marks of their claims. Returns their tasks.
  local function load_outcomes(runtime, from, to)
    local some = {}
    for n = from, to do
      turns[n], states[n], times[n], seconds[n], ids[n], extras[n], bodies[n] = struct.unpack(OUTCOME, ARGV[n + first - 1])
      some[n - from + 1] = ids[n]
      if not cannot_run and (states[n] == 'U' or states[n] == 'V') then
        cannot_run = true
        open_lanes()
        open_passing()
      end
    end
    for i, mark in ipairs(read_all('HMGET', CLAIMS .. runtime, some)) do marks[from + i - 1] = mark end
    return some
  end

  -- Settles some outcomes. `seen` are the tasks that have one.
  local function settle_some(runtime, from, to, seen, outcomes)
    local counted, owners, some = {}, {}, load_outcomes(runtime, from, to)
    local cancels = outcomes.canceling and read_all('HMGET', CANCELS .. runtime, some) or NONE
    for i, id in ipairs(some) do
      local n = from + i - 1
      local mark = marks[n]
      if mark and not seen[id] and turn_in(mark) == turns[n] then
        seen[id] = true
        counted[#counted + 1], owners[#owners + 1] = n, tenant_in(mark)
      else
        outcomes.refused[#outcomes.refused + 1] = id
      end
    end
    load_counts(owners)
    if has_policies or shard.by_time or limits then load_tenants(owners) end
    load_watchers(some)
    if limits then limits.load_marks(marks) end
    for c, n in ipairs(counted) do
      outcomes.settled[#outcomes.settled + 1] = ids[n]
      settle_one(n, owners[c], cancels[n - from + 1], outcomes)
    end
  end

  -- Decides what becomes of the outcomes, which are the arguments from `from` on: of those that are sure, and of others if
  -- they may be more (`may`) and there is time. `had` is how many these are.
  function settle(runtime, from, may)
    first = from
    local all, canceling = #ARGV - from + 1, some_cancels(runtime)
    local outcomes = { settled = {}, retries = {}, notes = {}, retried = {}, refused = {}, to_cancel = {}, returns_tasks = false,
      canceling = #canceling > 0, had = math.min(all, sure) }
    local seen = {}
    settle_some(runtime, 1, outcomes.had, seen, outcomes)
    while may and outcomes.had < all and has_time(0.5) do
      local last = math.min(all, outcomes.had + STEP)
      settle_some(runtime, outcomes.had + 1, last, seen, outcomes)
      outcomes.had = last
    end
    for _, id in ipairs(canceling) do
      if not seen[id] then table.insert(outcomes.to_cancel, id) end
    end
    return outcomes
  end

  -- Writes the retries. Before the number of the turn: a repeat does not report them again.
  function write_retries(outcomes)
    for _, task in ipairs(outcomes.retries) do
      call('SET', TASK .. task.id, task.record)
    end
    for i = 1, #outcomes.notes, 2 do call('APPEND', TASK .. outcomes.notes[i], outcomes.notes[i + 1]) end
    write_delayed()
  end

  -- Deletes the settled claims. After the number of the turn: until then an outcome must find its claim.
  function forget_claims(runtime, outcomes)
    write_all('HDEL', CLAIMS .. runtime, outcomes.settled)
    if #outcomes.settled > 0 and call('EXISTS', PROGRESS) == 1 then write_all('HDEL', PROGRESS, outcomes.settled) end
    if outcomes.canceling then write_all('HDEL', CANCELS .. runtime, outcomes.settled) end
  end
end
