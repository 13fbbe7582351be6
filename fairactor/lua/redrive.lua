-- Sends dead letters again, as new tasks at the end of their mailboxes. They keep their history.
--
-- KEYS  1 META of the shard
-- ARGV  1 the tenant whose dead letters to send, or '' for any, 2 and on, for each task, packed: id, its key as in
--       send.lua
-- Reply for each task: 1 queued, 0 not a dead letter of the tenant, or the id of the task that its key stands for. If the
--       records are large, the reply ends early: the caller sends the others with its next call. Or the error GONE: a tenant has moved to another
--       shard.
--
-- Safe to repeat: a queued task is no dead letter.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/key.lua
-- @include lib/ended_tasks.lua

local HISTORY = 20 -- lines that it keeps, as in record.py

-- Returns the call and the history, which follow the outcome in the body of a dead letter.
local function lines_behind(record, body)
  local call_line, history = record:sub(body):match('^[^\n]*\n?([^\n]*)(.*)$')
  local _, lines = history:gsub('\n', '')
  for _ = 1, lines - HISTORY do history = history:sub((history:find('\n', 2, true))) end
  return call_line .. history
end

local BYTES = 500000 -- of records in a call, by about one record; they are read and written again
local tenant, ids, keys, bytes = ARGV[1], {}, {}, 0
for i = 2, #ARGV do
  if bytes >= BYTES then break end
  ids[i - 1], keys[i - 1] = struct.unpack('>Hc0Hc0', ARGV[i])
  bytes = bytes + call('STRLEN', TASK .. ids[i - 1])
end

local replies, back, names, seen = {}, {}, {}, {}
for i, record in ipairs(read_records(ids)) do
  local id = ids[i]
  replies[i] = 0
  if record and record:sub(1, 1) == DEAD_STATE and is_owned_by(tenant, record) and not seen[id] then
    local _, _, priority, _, _, name, body = struct.unpack(HEADER, record)
    local holder = take_key(id, name, keys[i])
    if holder then
      replies[i] = holder
    else
      names[#names + 1] = name
      back[#back + 1] = { id = id, name = name, priority = priority, rest = lines_behind(record, body) }
      remove_letter(id, record)
      replies[i], seen[id] = 1, true
    end
  end
end
load_counts(names)
load_tenants(names)
for _, name in ipairs(names) do
  local limits = tenants[name][LIMITS]
  if limits and limits.gone then return redis.error_reply('GONE the tenant has moved to another shard') end
end
local records, queued = {}, {}
for _, task in ipairs(back) do
  local stamp, name = next_stamp(), task.name
  queued[#queued + 1] = task.id
  local record = struct.pack(HEADER, LIVE, 0, task.priority, 1, stamp, #name, name) .. task.rest
  note_size(#record)
  enqueue(name, task.id, stamp, task.priority, 0, record)
  add(name, FAILED, -1)
  add(name, task.priority, 1)
  records[#records + 1], records[#records + 2] = TASK .. task.id, record
end
update_ring(arriving)

begin_writing()
write_keys()
call_all('MSET', records)
write_queues()
change_letters('ZREM', queued)
write_letter_indexes()
save_counts()
save_shard()
return replies
