-- Cancels a tenant's queued, scheduled and deferred tasks, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 ms to keep the records, 3 their outcome, 4 cursor, 's0' at first
-- Reply {how many were canceled, next cursor, or '' at the end}
--
-- Safe to repeat: canceled tasks have ended. Started tasks go on.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/withdraw.lua

local BATCH = 500
local name, cancellation, cursor = ARGV[1], pack_cancel(tonumber(ARGV[2]), ARGV[3]), ARGV[4]
load_counts({ name })
load_tenants({ name })

local ids = call('ZRANGE', QUEUE .. name, 0, BATCH - 1)
local queued, index = #ids, WAITING
local suspects = queued < BATCH and call('ZRANGE', SUSPECTS .. name, 0, BATCH - queued - 1) or {}
for _, id in ipairs(suspects) do ids[#ids + 1] = id end
local ready = #ids

-- Adds the tenant's tasks from one step of a scan. Returns the next cursor of that scan.
local function walk(command, key)
  if counts[name][index] == 0 then return '0' end
  local found, others = call(command, key, cursor:sub(2), 'COUNT', BATCH), {}
  for i = 1, #found[2], 2 do others[#others + 1] = found[2][i] end
  for i, record in ipairs(read_records(others)) do
    if record and tenant_of(record) == name then ids[#ids + 1] = others[i] end
  end
  return found[1]
end

if ready < BATCH and cursor:sub(1, 1) == 's' then
  cursor = 's' .. walk('ZSCAN', SCHEDULED)
  if cursor == 's0' then cursor = counts[name][DEFERRED] > 0 and 'h0' or '' end
elseif ready < BATCH then
  index = DEFERRED
  cursor = 'h' .. walk('HSCAN', HELD)
  if cursor == 'h0' then cursor = '' end
end

load_watchers(ids)
for i, record in ipairs(read_records(ids)) do
  if record then
    add(name, i <= ready and record:byte(3) or index, -1)
    cancel_task(ids[i], name, record, cancellation)
  end
end
count_withdrawn(name, queued)
count_suspects_withdrawn(name, #suspects)
run_ends_hook()
update_ring(arriving)

begin_writing()
write_ends()
write_all('ZREM', QUEUE .. name, ids)
remove_suspects(name, suspects)
write_all('ZREM', SCHEDULED, ids)
write_all('HDEL', HELD, ids)
save_counts()
save_shard()
return { #ids, cursor }
