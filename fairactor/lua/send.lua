-- Accepts tasks: writes their records and puts each into its tenant's mailbox, or among the scheduled.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that sends, 2 number of the batch, 8 bytes, 3 its reservation (reserve.lua), or ''
--       then an argument for each task, packed: priority (1-6), 'w' to hear of the outcome, '+' to be accepted only
--       together with the task before it, or ' ', due ('' now, '+N' in N ms, 'N' at unix ms N), id, tenant,
--       key ('' none, else its window in ms as a double, then the text), body
-- Reply 0, or where some were not accepted as they are, for each task: 0 accepted, 1 a repeat, its id is there,
--       2 its id is another tenant's, 3 the mailbox is full, 4 it goes together with one whose mailbox is full,
--       or the id of the task that its key stands for
--
-- A batch sent again under the same number changes nothing, and gives the same reply; an id that is there is not
-- taken again, whoever sends it. All tasks of a batch are accepted in one step.

-- @include lib/intact.lua

local ITEM = '>Bc1Bc0Hc0Hc0Hc0'
local REPLAY = 3600000 -- ms for which a reply is kept: longer than anybody tries
local ACCEPTED, REPEAT, TAKEN_BY_ANOTHER, FULL, WITH_FULL = 0, 1, 2, 3, 4
local FIRST_TASK = 4
local sender, number, reservation = ARGV[1], ARGV[2], ARGV[3]

local sent = call('GET', SENT .. sender)
if sent then
  if sent:sub(1, 8) == number then
    call('PEXPIRE', SENT .. sender, REPLAY) -- a write, so that WAIT waits after a repeat as well
    return cmsgpack.unpack(sent:sub(9))
  end
  if struct.unpack('>I8', number) < struct.unpack('>I8', sent) then return 0 end -- a copy that was long under way
end
local function remember(reply) call('SET', SENT .. sender, number .. cmsgpack.pack(reply), 'PX', REPLAY) end

-- @include lib/hand.lua

if #ARGV == FIRST_TASK and reservation == '' then
  local priority, flag, due, id, name, key, body = struct.unpack(ITEM, ARGV[FIRST_TASK])
  if due == '' and hand_over(priority, flag, id, name, key, ARGV[FIRST_TASK]:sub(body)) then return 0 end
end

-- @include lib/ring.lua
-- @include lib/queues.lua

-- Of each task, in lists beside each other.
local ids, records, names, priorities, flags, dues, keys, bodies = {}, {}, {}, {}, {}, {}, {}, {}
for i = FIRST_TASK, #ARGV do
  local n = i - FIRST_TASK + 1
  priorities[n], flags[n], dues[n], ids[n], names[n], keys[n], bodies[n] = struct.unpack(ITEM, ARGV[i])
  records[n] = TASK .. ids[n]
end
load_counts(names)
meet(names)

local function has_backlogs()
  for _, t in pairs(has_policies and tenants or NONE) do
    if t[LIMITS] and t[LIMITS].backlog < math.huge then return true end
  end
  return false
end

-- Whether all ids are new, and there are no keys to look at: as nearly always.
local function all_fresh()
  local seen = {}
  for n, key in ipairs(records) do
    if seen[key] or keys[n] ~= '' then return false end
    seen[key] = true
  end
  return call_all('EXISTS', records) == 0
end

local verdicts = {}
local first = {} -- record -> the tenant of the first task of this batch that takes the id

local function judge(n)
  local key = records[n]
  local record = not first[key] and call('GET', key)
  local owner = record and (readable(record) and tenant_of(record) or '') or first[key] -- '': it cannot be read
  if owner then return owner == names[n] and REPEAT or TAKEN_BY_ANOTHER end
  return take_key(ids[n], names[n], keys[n]) or ACCEPTED
end

-- Judges tasks that are accepted together or not at all, where one of their mailboxes is full.
local function judge_together(from, to)
  local keys_before, wanted, full = #given, {}, {}
  for n = from, to do
    local name = names[n]
    verdicts[n] = judge(n)
    if verdicts[n] == ACCEPTED then
      first[records[n]] = name
      wanted[name] = (wanted[name] or 0) + 1
      if wanted[name] > room_in(name, tenants[name][LIMITS], reservation) then full[name] = true end
    end
  end
  if next(full) then
    drop_keys(keys_before)
    for n = from, to do
      if verdicts[n] == ACCEPTED then
        first[records[n]] = nil
        verdicts[n] = full[names[n]] and FULL or WITH_FULL
      end
    end
  else
    for name, many in pairs(wanted) do take_room(name, many) end
  end
end

if has_backlogs() or not all_fresh() then
  local from = 1
  for n = 1, #names do
    if flags[n + 1] ~= '+' then
      judge_together(from, n)
      from = n + 1
    end
  end
else
  verdicts = nil
end

local fresh, scheduled, watched = {}, {}, {}
for n, name in ipairs(names) do
  if not verdicts or verdicts[n] == ACCEPTED then
    local id, priority, due = ids[n], priorities[n], dues[n]
    local stamp = next_stamp()
    if due ~= '' then
      -- A delayed task takes its place by when it is due, not by when it was sent.
      local at = due:sub(1, 1) == '+' and shard.ms + tonumber(due) or tonumber(due)
      stamp = at * 1000
      scheduled[#scheduled + 1], scheduled[#scheduled + 2] = integer(at), id
      add(name, WAITING, 1)
    else
      enqueue(name, id, stamp, priority)
      add(name, priority, 1)
    end
    if flags[n] == 'w' then watched[#watched + 1], watched[#watched + 2] = id, cmsgpack.pack({ sender }) end
    fresh[#fresh + 1] = records[n]
    fresh[#fresh + 1] = struct.pack(HEADER, LIVE, 0, priority, 1, stamp, #name, name) .. ARGV[n + FIRST_TASK - 1]:sub(bodies[n])
  end
end
seat(arriving)

begin_writing()
write_keys()
if reservation ~= '' then use_reservation(reservation, names) end
write_all('HSET', WATCHERS, watched)
call_all('MSET', fresh)
write_queues()
write_all('ZADD', SCHEDULED, scheduled)
remember(verdicts or 0)
save_counts()
save_shard()
if #scheduled > 0 then -- whoever sleeps must learn of the earlier due time
  wake_idle()
  wake_homes(names)
end
return verdicts or 0
