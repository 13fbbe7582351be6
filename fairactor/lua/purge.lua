-- Cancels a tenant's queued, delayed and deferred tasks, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 ms to keep the records, 3 their outcome, 4 cursor, '0' at first
-- Reply {how many were canceled, next cursor, or '' at the end}; the same cursor while some are on their way to another
--       shard (export.lua)
--
-- Safe to repeat: canceled tasks have ended. Started tasks go on.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua
-- @include lib/first_tasks.lua

local name, cancellation, cursor = ARGV[1], pack_cancel(tonumber(ARGV[2]), ARGV[3]), ARGV[4]
load_counts({ name })
load_tenants({ name })
local own = tenants[name][LIMITS]
if own and own.gone and call('EXISTS', LEAVING .. name) == 1 then return { 0, cursor } end

local queued = { [''] = take_first(QUEUE .. name) }
for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, BATCH - 1) or {}) do
  queued[lane] = take_first(mailbox(name, lane))
end
local suspects = take_first(SUSPECTS .. name)
local ready = #ids
local delayed_ids = take_first(DELAYED .. name)
local waiting = #ids

-- Takes the tenant's tasks from one step of a scan of all deferred ones. Returns the next cursor: the same if there are
-- too many of them.
local function scan_deferred()
  if counts[name][DEFERRED] == 0 then return '0' end
  local found = call('HSCAN', HELD, cursor, 'COUNT', BATCH)
  for i = 1, #found[2], 2 do
    local header = call('GETRANGE', TASK .. found[2][i], 0, 600) -- somebody else's record may be large
    if readable(header) and tenant_of(header) == name then
      if is_full() then return cursor, true end
      take(found[2][i])
    end
  end
  return found[1]
end

if not is_full() then
  local again
  cursor, again = scan_deferred()
  if cursor == '0' and not again then cursor = '' end
end

-- Returns the count that a task leaves.
local function index_of(i, record)
  if i > waiting then return DEFERRED end
  return i > ready and WAITING or record:byte(3)
end

load_watchers(ids)
do -- what follows one of these ends with it
  local taken, following = {}, {}
  for _, id in ipairs(ids) do taken[id] = true end
  for i = 1, #ids do
    local follower = followers[ids[i]]
    if follower and not taken[follower] then
      following[#following + 1] = follower
      take(follower)
    end
  end
  load_watchers(following)
end
for i, record in ipairs(read_records(ids)) do
  if record then
    add(name, index_of(i, record), -1)
    cancel_task(ids[i], name, record, cancellation)
  end
end
for lane, found in pairs(queued) do count_withdrawn(name, #found, lane) end
count_suspects_withdrawn(name, #suspects)
run_ends_hook()
update_ring(arriving)

begin_writing()
write_ends()
for lane, found in pairs(queued) do write_all('ZREM', mailbox(name, lane), found) end
remove_suspects(name, suspects)
if #delayed_ids > 0 then remove_delayed(name, delayed_ids, 0) end
write_all('HDEL', HELD, ids)
save_counts()
save_shard()
return { #ids, cursor }
