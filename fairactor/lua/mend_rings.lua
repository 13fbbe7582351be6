-- Repairs the counts of a shard, its limits and its rings, after mend_places.lua, and ends the repair.
--
-- KEYS  1 META of the shard
-- ARGV  1 a name of the client
-- Reply the script of the repair to call next, as mend.lua
--
-- Safe to repeat: it goes on from what is stored (see lib/mend_steps.lua). Last it deletes what the repair has noted, and
-- then says that the shard is whole. In between nobody would know how far it was, so it would begin anew.

-- @include lib/mend_steps.lua

local reply = stops('mend_rings', ARGV[1])
if reply then return reply end

-- @include lib/base.lua
-- @include lib/fleet.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/mend_counts.lua
-- @include lib/mend_limits.lua

local REPAIRED = 'm' -- an event, as in subscriber.py
local AT_ONCE = 40 -- tenants
local LONG = 1000 -- ms: a repair in which leases may end

-- Removes entries that do not belong on a ring at all. Whether the others do is decided later.
local function clear_ring(ring, flat)
  local names, gone = {}, {}
  for i = 1, #flat, 2 do
    if flat[i]:byte() ~= GROUP_BYTE or ring ~= root then names[#names + 1] = flat[i] end
  end
  spend(4 * #names)
  load_tenants(names)
  for i, packed in ipairs(read_all('HMGET', COUNTS, names)) do
    if not packed or tenants[names[i]][OUTER] ~= ring then gone[#gone + 1] = names[i] end
  end
  write_all('ZREM', ring.key, gone)
end
local function clear_root(_, flat) clear_ring(root, flat) end

-- Returns the group whose ring has this key, if it is of the kind for which the script acts.
local function group_with(key)
  return key:sub(1, #shard.group) == shard.group and key:sub(#shard.group + 1)
end

local function clear_group(_, flat, key)
  local name = group_with(key)
  if name then clear_ring(group_of(name)[INNER], flat) end
end

local function clear_throttled()
  spend(MOST) -- the next call loads tenants anew
  call('UNLINK', THROTTLED)
end

-- Brings tenants onto the rings, or off them.
local function rebuild_rings(names)
  local waiting = {}
  spend(MOST)
  load_tenants(names)
  load_tags(names)
  for _, name in ipairs(names) do
    local t = tenants[name]
    if lanes then lanes.changed[name] = true end
    local works = t[LIMITS] == false
      and (lanes and lanes.works(name, shard.kind) or not lanes and call('EXISTS', QUEUE .. name) == 1)
    if works then
      waiting[#waiting + 1] = name
    elseif t[LIMITS] == false then
      t[LEAVES] = t[STORED] and true
    end
  end
  update_ring(waiting)
  save_rings()
end

-- Makes the entry of a group agree with its ring.
local function repair_group(name)
  local member, cards = string.char(GROUP_BYTE) .. name, call('ZCARD', shard.group .. name)
  spend(5)
  if cards == 0 then
    call('HDEL', shard.groups, name)
    call('ZREM', root.key, member)
  elseif not call('ZSCORE', root.key, member) then
    local group = group_of(name)
    call('HSETNX', shard.groups, name, 0)
    call('ZADD', root.key, exact(root.virtual + arrival_cost(member) / group[WEIGHT]), member)
  else
    call('HSETNX', shard.groups, name, 0)
  end
end

local function repair_groups(_, flat)
  for i = 1, #flat, 2 do repair_group(flat[i]) end
end
local function repair_group_ring(_, key)
  local name = group_with(key)
  if name then repair_group(name) end
end
local function repair_members(_, flat)
  for i = 1, #flat, 2 do
    if flat[i]:byte() == GROUP_BYTE then repair_group(flat[i]:sub(2)) end
  end
end

-- Nobody could renew a lease by a turn. So a lease that stood when the repair began lasts as much longer.
local function extend_leases()
  local began = tonumber(state.began) or now_ms()
  local took, times = now_ms() - began, {}
  if took < LONG then return end
  local since = integer(math.max(began + shard.behind / 1000, NO_LEASE))
  local leases = call('ZRANGEBYSCORE', LEASES, '(' .. since, '+inf', 'WITHSCORES')
  for i = 1, #leases, 2 do times[i], times[i + 1] = integer(leases[i + 1] + took), leases[i] end
  write_all('ZADD', LEASES, times)
end

local left = run_phases({
  { over = KIND, run = delete_unless_there },
  { over = KIND_IDLE, run = delete_unless_there },
  { over = KIND_RING, run = delete_unless_ours },
  { over = KIND_GROUPS, run = delete_unless_ours },
  { over = KIND_GROUP, run = delete_unless_ours },
  { over = GROUP, run = delete_first_kind },
  { keys = { RING, GROUPS }, run = delete_first_kind },
  { over = LINES, run = delete },
  { over = LINES_OF, run = delete },
  { over = LINE, run = delete },
  { over = LINE_GROUP, run = delete },
  { over = LINE_GROUPS, run = delete },
  { once = delete_of_limits },
  { over = LIMITS_FOUND, many = write_started },
  { once = repair_services },
  { once = open_again },
  { over = TENANTS, many = recount },
  { keys = { shard.ring }, scan = 'ZSCAN', run = clear_root },
  { over = GROUP, scan = 'ZSCAN', run = clear_group },
  { over = KIND_GROUP, scan = 'ZSCAN', run = clear_group },
  { once = clear_throttled },
  { over = TENANTS, many = rebuild_rings, size = AT_ONCE },
  { keys = { shard.groups }, scan = 'HSCAN', run = repair_groups },
  { over = GROUP, run = repair_group_ring },
  { over = KIND_GROUP, run = repair_group_ring },
  { keys = { shard.ring }, scan = 'ZSCAN', run = repair_members },
  { keys = { DRAINED }, scan = 'ZSCAN', run = repair_drained },
  { over = ENDED_OF, run = forget_list_of_ended },
})
if left then return left end

forget_lists()
extend_leases()
use_sums()
call('UNLINK', MENDING)
save_shard(true)
-- All runtimes hear of it, and take a turn.
for kind in shard.kinds:gmatch('%d+') do call('UNLINK', idle_of(kind)) end
call('UNLINK', IDLE_HOMES, IDLE_SLOTS)
call('PUBLISH', EVENTS, REPAIRED) -- who waits asks again
return 'done'
