-- Reads the next waiting tasks of a tenant that has gone to another shard.
-- Until exported.lua says that they have arrived there, nothing else ends them here.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant
-- Reply [id, unix ms at which it is due, or '', its key as KEYED has it, or '', record, or '' if that is lost] ...;
--       nothing if no task waits
--
-- Bounded: 100 tasks, and 500 kB of records by about one.
-- Safe to repeat: it returns the same tasks until they have arrived. They go in the order of their places.

-- @include lib/intact.lua
-- @include lib/first_tasks.lua

local name = ARGV[1]
local packed = call('HGET', POLICY, name)
if not packed or cmsgpack.unpack(packed).moving ~= 'gone' then return {} end

local leaving = call('SMEMBERS', LEAVING .. name)
if #leaving > 0 then
  ids = leaving
else
  take_first(QUEUE .. name)
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do take_first(mailbox(name, lane)) end
  take_first(SUSPECTS .. name)
  take_first(DELAYED .. name)
end
local reply, lost = {}, {}
for i, record in ipairs(read_records(ids)) do
  local id, n = ids[i], #reply
  reply[n + 1], reply[n + 2] = id, record and call('ZSCORE', DELAYED .. name, id) or ''
  reply[n + 3], reply[n + 4] = record and call('HGET', KEYED, id) or '', record or ''
  if not record then lost[#lost + 1] = id end
end

if #ids == 0 then return reply end
begin_writing()
write_all('SADD', LEAVING .. name, ids)
if #lost > 0 then -- nothing else would take them out of their places
  write_all('ZREM', QUEUE .. name, lost)
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do
    write_all('ZREM', mailbox(name, lane), lost)
  end
  write_all('ZREM', SUSPECTS .. name, lost)
  write_all('ZREM', DELAYED .. name, lost)
end
end_writing()
return reply
