-- Accepts tasks: writes their records and puts each into its tenant's mailbox, or among the scheduled.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that sends, 2 number of the batch, 4 bytes
--       then an argument for each task, packed: priority (1-6), 'w' to hear of the outcome or ' ',
--       due ('' now, '+N' in N ms, 'N' at unix ms N), id, tenant,
--       key ('' none, else its window in ms as a double, then the text), body
-- Reply 0, or where some were not accepted as they are, for each task: 0 accepted, 1 a repeat, its id is there,
--       2 its id is another tenant's, or the id of the task that its key stands for
--
-- A batch sent again under the same number changes nothing, and gives the same reply; an id that is there is not
-- taken again, whoever sends it. All tasks of a batch are accepted in one step.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/key.lua

local ITEM = '>Bc1Bc0Hc0Hc0Hc0'
local REPLAY = 3600000 -- ms for which a reply is kept: longer than anybody tries
local sender, number = ARGV[1], ARGV[2]

local sent = call('GET', SENT .. sender)
if sent then
  if sent:sub(1, 4) == number then
    call('PEXPIRE', SENT .. sender, REPLAY) -- a write, so that WAIT waits after a repeat as well
    return cmsgpack.unpack(sent:sub(5))
  end
  if struct.unpack('>I4', number) < struct.unpack('>I4', sent) then return 0 end -- a copy that was long under way
end

-- Of each task, in lists beside each other.
local ids, records, names, priorities, watches, dues, keys, bodies = {}, {}, {}, {}, {}, {}, {}, {}
for i = 3, #ARGV do
  local n = i - 2
  priorities[n], watches[n], dues[n], ids[n], names[n], keys[n], bodies[n] = struct.unpack(ITEM, ARGV[i])
  records[n] = TASK .. ids[n]
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

-- The verdict on each task; nil where all are accepted as they are.
local function judge()
  if all_fresh() then return nil end
  local verdicts, first = {}, {}
  for n, key in ipairs(records) do
    local record = not first[key] and call('GET', key)
    local owner = record and (readable(record) and tenant_of(record) or '') or first[key] -- '': it cannot be read
    if owner then
      verdicts[n] = owner == names[n] and 1 or 2
    else
      verdicts[n] = take_key(ids[n], names[n], keys[n]) or 0
      if verdicts[n] == 0 then first[key] = names[n] end
    end
  end
  return verdicts
end

local verdicts = judge()
load_counts(names)
meet(names)

local fresh, scheduled, watched = {}, {}, {}
for n, name in ipairs(names) do
  if not verdicts or verdicts[n] == 0 then
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
    if watches[n] == 'w' then watched[#watched + 1], watched[#watched + 2] = id, cmsgpack.pack({ sender }) end
    fresh[#fresh + 1] = records[n]
    fresh[#fresh + 1] = struct.pack(HEADER, LIVE, 0, priority, 1, stamp, #name, name) .. ARGV[n + 2]:sub(bodies[n])
  end
end
arrive(arriving)

begin_writing()
write_keys()
write_all('HSET', WATCHERS, watched)
call_all('MSET', fresh)
write_queues()
write_all('ZADD', SCHEDULED, scheduled)
call('SET', SENT .. sender, number .. cmsgpack.pack(verdicts or 0), 'PX', REPLAY)
save_counts()
save_shard()
if #scheduled > 0 then wake_idle() end -- whoever sleeps must learn of the earlier due time
return verdicts or 0
