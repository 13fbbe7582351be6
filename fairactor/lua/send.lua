-- Accepts tasks: writes their records and puts each into its tenant's mailbox, or among the scheduled.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that wants to hear of outcomes
--       then an argument for each task, packed: priority (1-6), 'w' to hear of the outcome or ' ',
--       due ('' now, '+N' in N ms, 'N' at unix ms N), id, tenant, body
-- Reply 0, or where some ids were taken already, for each task: 0 accepted, 1 a repeat, 2 of another tenant
--
-- A repeat changes nothing, so a batch may be sent again. All tasks of a batch are accepted in one step.

-- @include lib/base.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua

local ITEM = '>Bc1Bc0Hc0Hc0'
local watcher = ARGV[1]

-- Of each task, in lists beside each other.
local ids, keys, names, priorities, watches, dues, bodies = {}, {}, {}, {}, {}, {}, {}
for i = 2, #ARGV do
  local n = i - 1
  priorities[n], watches[n], dues[n], ids[n], names[n], bodies[n] = struct.unpack(ITEM, ARGV[i])
  keys[n] = TASK .. ids[n]
end

-- The verdict on each id; nil where all are new, as nearly always.
local function find_repeats()
  local seen, fresh = {}, true
  for i, key in ipairs(keys) do
    if seen[key] then fresh = false end
    seen[key] = seen[key] or names[i]
  end
  if fresh then
    local found = 0
    for i = 1, #keys, SLICE do
      found = found + call('EXISTS', unpack(keys, i, math.min(i + SLICE - 1, #keys)))
    end
    if found == 0 then return nil end
  end
  local verdicts, first = {}, {}
  for i, key in ipairs(keys) do
    local record = call('GET', key)
    local owner = record and select(5, struct.unpack(HEADER, record)) or first[key]
    verdicts[i] = not owner and 0 or (owner == names[i] and 1 or 2)
    first[key] = owner or names[i]
  end
  return verdicts
end

local verdicts = find_repeats()
load_counts(names)
meet(names)

local records, scheduled, watched = {}, {}, {}
for n, name in ipairs(names) do
  if not verdicts or verdicts[n] == 0 then
    local id, priority, due = ids[n], priorities[n], dues[n]
    local stamp = next_stamp()
    if due ~= '' then
      -- A delayed task takes its place by when it is due, not by when it was sent.
      local at = due:sub(1, 1) == '+' and math.floor(shard.now / 1000) + tonumber(due) or tonumber(due)
      stamp = at * 1000
      scheduled[#scheduled + 1], scheduled[#scheduled + 2] = integer(at), id
      add(name, WAITING, 1)
    else
      enqueue(name, id, stamp, priority)
      add(name, priority, 1)
    end
    if watches[n] == 'w' then watched[#watched + 1], watched[#watched + 2] = id, cmsgpack.pack({ watcher }) end
    records[#records + 1] = keys[n]
    records[#records + 1] = struct.pack(HEADER, LIVE, 0, priority, stamp, #name, name) .. ARGV[n + 1]:sub(bodies[n])
  end
end
arrive(arriving)

for i = 1, #records, SLICE do
  call('MSET', unpack(records, i, math.min(i + SLICE - 1, #records)))
end
write_queues()
write_all('ZADD', SCHEDULED, scheduled)
write_all('HSET', WATCHERS, watched)
save_counts()
save_ring()
if #scheduled > 0 then wake_idle() end -- whoever sleeps must learn of the earlier due time
return verdicts or 0
