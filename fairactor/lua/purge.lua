-- Cancels what waits for a tenant, some at a time: first what is in its mailbox, then what is scheduled.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 how long to keep the records in ms, 3 their outcome, 4 cursor, 0 at first
-- Reply {how many it has canceled, the next cursor, or '' at the end}
--
-- Safe to repeat: what is canceled waits no more. What has started goes on.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua

local SOME = 500
local name, canceled, cursor = ARGV[1], pack_cancel(tonumber(ARGV[2]), ARGV[3]), ARGV[4]
load_counts({ name })
meet({ name })

local ids = call('ZRANGE', QUEUE .. name, 0, SOME - 1)
local queued = #ids
if queued < SOME and counts[name][WAITING] > 0 then
  local found = call('ZSCAN', SCHEDULED, cursor, 'COUNT', SOME)
  cursor = found[1] == '0' and '' or found[1]
  local due = {}
  for i = 1, #found[2], 2 do due[#due + 1] = found[2][i] end
  for i, record in ipairs(read_records(due)) do
    if record and tenant_of(record) == name then ids[#ids + 1] = due[i] end
  end
elseif queued < SOME then
  cursor = ''
end

learn(ids)
for i, record in ipairs(read_records(ids)) do
  if record then
    add(name, i <= queued and record:byte(3) or WAITING, -1)
    cancel_task(ids[i], name, record, canceled)
  end
end
withdraw(name, queued)
seat({})

begin_writing()
write_ends()
write_all('ZREM', QUEUE .. name, ids)
write_all('ZREM', SCHEDULED, ids)
save_counts()
save_shard()
return { #ids, cursor }
