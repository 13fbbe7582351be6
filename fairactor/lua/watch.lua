-- Asks for the outcomes of tasks: the reply has those that exist, messages bring the others.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that asks, then for each task: id, its tenant, or '' for any, tenant of the running task that
--       waits for it, or ''
-- Reply for each task {'o', record} settled, {'w'} to come, {'n'} the tenant has no such task,
--       {'d', tenant} refused: the waiting task holds the only slot of that tenant
--
-- Safe to repeat: a runtime is listed once.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/policy.lua

local runtime = ARGV[1]
local ids = {}
for i = 2, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local records = read_records(ids)

local function would_deadlock(owner, waiter)
  if owner ~= waiter then return false end
  return (policy_of(owner).concurrency or defaults.concurrency) == 1
end

local replies, register = {}, {}
for i, id in ipairs(ids) do
  local record = records[i]
  if not record or not is_owned_by(ARGV[3 * i], record) then
    replies[i] = { 'n' }
  elseif record:sub(1, 1) ~= LIVE then
    replies[i] = { 'o', record }
  else
    local owner = tenant_of(record)
    if would_deadlock(owner, ARGV[1 + 3 * i]) then
      replies[i] = { 'd', owner }
    else
      replies[i] = { 'w' }
      register[id] = true
    end
  end
end

for id in pairs(register) do
  local packed = call('HGET', WATCHERS, id)
  local readable_list, runtimes = pcall(cmsgpack.unpack, packed or '\144') -- an empty list
  if not readable_list or type(runtimes) ~= 'table' then runtimes = {} end -- somebody has damaged it
  local known = false
  for _, other in ipairs(runtimes) do known = known or other == runtime end
  if not known then
    runtimes[#runtimes + 1] = runtime
    call('HSET', WATCHERS, id, cmsgpack.pack(runtimes))
  end
end
return replies
