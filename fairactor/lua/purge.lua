-- Cancels a tenant's queued, delayed and deferred tasks, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 ms to keep the records, 3 their outcome, 4 cursor, '0' at first
-- Reply {how many were canceled, next cursor, or '' at the end}
--
-- Safe to repeat: canceled tasks have ended. Started tasks go on.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua

local BATCH = 500
local name, cancellation, cursor = ARGV[1], pack_cancel(tonumber(ARGV[2]), ARGV[3]), ARGV[4]
load_counts({ name })
load_tenants({ name })

local ids = call('ZRANGE', QUEUE .. name, 0, BATCH - 1)
local queued = #ids
local suspects = queued < BATCH and call('ZRANGE', SUSPECTS .. name, 0, BATCH - queued - 1) or {}
for _, id in ipairs(suspects) do ids[#ids + 1] = id end
local ready = #ids
local delayed_ids = ready < BATCH and call('ZRANGE', DELAYED .. name, 0, BATCH - ready - 1) or {}
for _, id in ipairs(delayed_ids) do ids[#ids + 1] = id end
local waiting = #ids

-- Adds the tenant's tasks from one step of a scan of all deferred ones. Returns the next cursor.
local function scan_deferred()
  if counts[name][DEFERRED] == 0 then return '0' end
  local found, others = call('HSCAN', HELD, cursor, 'COUNT', BATCH), {}
  for i = 1, #found[2], 2 do others[#others + 1] = found[2][i] end
  for i, record in ipairs(read_records(others)) do
    if record and tenant_of(record) == name then ids[#ids + 1] = others[i] end
  end
  return found[1]
end

if waiting < BATCH then
  cursor = scan_deferred()
  if cursor == '0' then cursor = '' end
end

-- Returns the count that a task leaves.
local function index_of(i, record)
  if i > waiting then return DEFERRED end
  return i > ready and WAITING or record:byte(3)
end

load_watchers(ids)
for i, record in ipairs(read_records(ids)) do
  if record then
    add(name, index_of(i, record), -1)
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
if #delayed_ids > 0 then remove_delayed(name, delayed_ids, 0) end
write_all('HDEL', HELD, ids)
save_counts()
save_shard()
return { #ids, cursor }
