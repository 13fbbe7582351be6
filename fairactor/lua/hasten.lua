-- Queues scheduled tasks now, whenever they are due.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: for each task its id, and its tenant, or '' for any
-- Reply for each 1 if it was scheduled, else 0
--
-- Bounded: its caller names 200 tasks; it reads the beginnings of their records.
-- Safe to repeat: a queued task is not scheduled.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/undelay.lua

local STAMP_AT = 5 -- where the stamp is in a record
local due, names, reply, stamps, chosen = {}, {}, {}, {}, {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local record = call('GETRANGE', TASK .. id, 0, 2400) -- header and route; records may be large
  local fits = readable(record) and record:sub(1, 1) == LIVE and is_owned_by(ARGV[i + 1], record)
  local name = fits and tenant_of(record)
  local scheduled = name and not due[id] and call('ZSCORE', DELAYED .. name, id)
    and (shard.epoch == 0 or call('SISMEMBER', LEAVING .. name, id) == 0)
  reply[#reply + 1] = scheduled and 1 or 0
  if scheduled then
    names[#names + 1], due[id], chosen[#chosen + 1] = name, record, id
  end
end
if #chosen == 0 then return reply end

load_counts(names)
load_tenants(names)
local of_tenant = {}
for i, id in ipairs(chosen) do
  local name = names[i]
  local _, count, priority, _, stamp = struct.unpack(HEADER, due[id])
  if stamp > shard.stamp then -- that of a task with a delay is when it is due
    stamp = next_stamp()
    stamps[#stamps + 1] = { id, stamp }
  end
  enqueue(name, id, stamp, priority, count, due[id])
  add(name, WAITING, -1)
  add(name, priority, 1)
  of_tenant[name] = of_tenant[name] or {}
  table.insert(of_tenant[name], id)
end
update_ring(arriving)

begin_writing()
for _, task in ipairs(stamps) do call('SETRANGE', TASK .. task[1], STAMP_AT, struct.pack('>d', task[2])) end
write_queues()
for name, ids in pairs(of_tenant) do remove_delayed(name, ids, shard.ms) end
save_counts()
save_shard()
return reply
