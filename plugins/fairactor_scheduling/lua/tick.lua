-- Sends the due runs of schedules, and moves these on: each only if nobody has done so before.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on, for each schedule, packed: {schedule, version, time of its next run, or -1, time of the run after
--       those below, or -1, when that is due, or -1, time up to which missed runs were handled, time of the first
--       missed run, or -1, {times of the runs to send}}; all in ms
-- Reply for each 1 if it was moved on, 0 if somebody else has done so, or its tenant moves to another shard
--
-- Safe to repeat: a schedule that was moved on is skipped. If the script fails before that, the ids are the same again,
-- and are accepted once.
--
-- A run that waits for the one before it or for room in the mailbox is kept in `waiting`, and goes before later ones.
-- It is tried when a task of the run before has ended (ended.lua), or after a while.
--
-- Bounded: it sends about 250 tasks and 1 MB, at least one run, and looks at as much of what its caller gives, which is
-- 50 schedules and 250 runs. The schedules that are left stay due.

-- @include lib/intact.lua
-- @include lib/accept.lua
-- @include own/lib.lua
-- @include own/sending.lua

local MOST_WAITING, AT_ONCE = 1000, 10 -- of a schedule; how many are tried at once
local ROOM, LOOK_AGAIN = 5000, 60000 -- ms until there may be room; until the run before may have ended unseen
local MOST_TASKS = 250 -- that are sent, or looked at, in one script
local BYTES = 1048576 -- of what is sent in one script
local PLANNED = 20 -- waiting runs that cost as much as a look at a task

local items, runs = {}, {} -- tasks to accept; for each run its schedule, time, id, the ids and the places of its tasks
local seen = {}
local looked_at, bytes = 0, 0

local function lives(task) return task and call('GETRANGE', TASK .. task, 0, 0) == LIVE end

-- Returns the task of the previous run whose end to wait for: of those that live the last, which ends last as a rule.
local function living_task(s)
  local tasks = s.packed_tasks and s.packed_tasks ~= '' and cmsgpack.unpack(s.packed_tasks) or { s.previous }
  for i = #tasks, 1, -1 do
    looked_at = looked_at + 1
    if lives(tasks[i]) then return tasks[i] end
  end
end

-- Whether a run has to wait for the next script.
local function is_too_much(s)
  local many = s.many > 1 and #items + looked_at + s.many > MOST_TASKS
  return #items > 0 and (many or bytes + s.size > BYTES)
end

local function add_run(s, planned)
  local id = 'schedule:' .. s.generation .. ':'
  if s.many > 0 then
    if not s.graph then
      local graph = call('HGET', key_of(s.name), 'graph')
      s.graph, s.size = read_graph(graph), #graph
    end
    id = id .. string.format('%013.0f', planned) -- all ids of runs are equally long
  else
    id = id .. integer(planned)
  end
  if s.many == 0 and not s.item then
    s.item = call('HGET', key_of(s.name), 'item')
    s.size = #s.item
  end
  bytes = bytes + s.size
  local first = #items + 1
  runs[#runs + 1] = { s, planned, id, add_tasks(items, s.item, s.graph, id), first, #items }
  s.busy = true
end

-- Decides about a run whose time has come, after those that wait.
local function plan_run(s, planned)
  if s.budget and s.runs >= s.budget then return end
  local blocked = #s.waiting > 0 or s.overlap ~= 'allow' and s.busy
  if blocked and s.overlap == 'skip' or s.tried + #s.waiting >= MOST_WAITING then
    s.lines = add_line(s.lines, planned, 'skipped', s.previous)
  else
    s.runs = s.runs + 1
    if blocked or is_too_much(s) then s.waiting[#s.waiting + 1] = planned else add_run(s, planned) end
  end
end

-- Reads a schedule; nil if it is not where the tick expects it.
local function read_schedule(name, version, expected)
  local state, known, planned, generation, overlap, budget, kept, sent, waiting, previous, lines, many, tasks, behind =
    unpack(call('HMGET', key_of(name), 'state', 'version', 'planned', 'generation', 'overlap', 'budget', 'kept', 'runs',
      'waiting', 'previous', 'lines', 'many', 'tasks', 'behind'))
  if state ~= 'active' or tonumber(known) ~= version or tonumber(planned) ~= expected then return nil end
  local moves = moving((owner_of(name)))
  if moves == 'gone' or moves == 'arriving' and overlap ~= 'allow' then return nil end -- as in due.lua
  waiting = waiting and cmsgpack.unpack(waiting) or {}
  looked_at = looked_at + #waiting / PLANNED
  return { name = name, generation = generation, overlap = overlap, budget = tonumber(budget), kept = tonumber(kept),
    runs = tonumber(sent), waiting = waiting, previous = previous, lines = lines, many = tonumber(many) or 0, size = 0,
    packed_tasks = tasks, behind = behind or previous }
end

-- Sends the waiting runs that may go.
local function send_waiting(s)
  local waiting = s.waiting
  s.waiting, s.tried = {}, 0
  for _, planned in ipairs(waiting) do
    if s.tried == AT_ONCE or s.busy and s.overlap ~= 'allow' or is_too_much(s) then
      s.waiting[#s.waiting + 1] = planned
    else
      s.tried = s.tried + 1
      add_run(s, planned)
    end
  end
end

local function advance(packed)
  local name, version, expected, following, due, checked, missed, times = unpack(cmsgpack.unpack(packed))
  local room = #items + looked_at < MOST_TASKS and bytes < BYTES
  local s = room and not seen[name] and read_schedule(name, version, expected)
  if not s then return nil end
  seen[name] = true
  s.planned, s.due, s.checked = following, due, checked
  if missed >= 0 then s.lines = add_line(s.lines, missed, 'missed') end
  s.blocker = s.overlap ~= 'allow' and living_task(s)
  s.busy = s.blocker
  send_waiting(s)
  for _, planned in ipairs(times) do plan_run(s, planned) end
  return s
end

local function note_verdict(run, verdicts)
  local s, planned, id, tasks, first, last = unpack(run)
  local verdict = verdict_of(verdicts, first, last)
  if verdict == FULL then
    s.full = s.full or {}
    s.full[#s.full + 1] = planned
  elseif verdict == ACCEPTED or verdict == REPEAT then
    s.lines, s.previous = add_line(s.lines, planned, 'sent', id), id
    s.tasks, s.blocker = tasks, tasks[#tasks]
  else
    local refused = verdict == TAKEN_BY_ANOTHER
    s.lines = add_line(s.lines, planned, refused and 'refused' or 'duplicate', refused and id or verdict)
    s.busy = false
  end
end

-- Runs that found no room wait before the others.
local function keep_full(s)
  for _, planned in ipairs(s.waiting) do s.full[#s.full + 1] = planned end
  s.waiting = s.full
end

local function next_attempt(s)
  if #s.waiting == 0 then return math.huge end
  if s.full then return shard.wall_ms + ROOM end
  return shard.wall_ms + (s.busy and s.overlap ~= 'allow' and LOOK_AGAIN or 0)
end

local function write_schedule(s)
  local key, fields = key_of(s.name), { 'planned', integer(s.planned), 'checked', integer(s.checked), 'runs',
    integer(s.runs), 'waiting', cmsgpack.pack(s.waiting) }
  local over = s.planned < 0 or s.budget and s.runs >= s.budget
  local at = math.min(not over and s.due or math.huge, next_attempt(s))
  if over then fields[2] = '-1' end
  if over and #s.waiting == 0 then
    at = s.kept > 0 and shard.wall_ms + s.kept or math.huge
    fields[#fields + 1], fields[#fields + 2] = 'state', 'finished'
    fields[#fields + 1], fields[#fields + 2] = 'until', at < math.huge and integer(at) or ''
  end
  if s.lines then fields[#fields + 1], fields[#fields + 2] = 'lines', s.lines end
  if s.tasks then
    fields[#fields + 1], fields[#fields + 2] = 'previous', s.previous
    fields[#fields + 1], fields[#fields + 2] = 'tasks', #s.tasks > 1 and cmsgpack.pack(s.tasks) or ''
  end
  local behind = #s.waiting > 0 and not s.full and (s.blocker or s.previous) or ''
  fields[#fields + 1], fields[#fields + 2] = 'behind', behind
  if s.behind and s.behind ~= '' and s.behind ~= behind then call('HDEL', OWN .. 'behind', s.behind) end
  if behind ~= '' then call('HSET', OWN .. 'behind', behind, s.name) end
  call('HSET', key, unpack(fields))
  if at == math.huge then call('ZREM', OWN .. 'due', s.name) else call('ZADD', OWN .. 'due', integer(at), s.name) end
end

local schedules, reply = {}, {}
for i, packed in ipairs(ARGV) do
  local s = advance(packed)
  schedules[#schedules + 1] = s
  reply[i] = s and 1 or 0
end
if #schedules == 0 then return reply end
local verdicts = #items > 0 and accept(items, '', '')
for _, run in ipairs(runs) do note_verdict(run, verdicts) end
for _, s in ipairs(schedules) do
  if s.full then keep_full(s) end
end
update_ring(arriving)

begin_writing()
local wake_later = #items > 0 and write_accepted()
for _, s in ipairs(schedules) do write_schedule(s) end
save_counts()
save_shard()
if wake_later then wake_later() end
return reply
