-- Asks for the outcomes of tasks: the reply has those that exist, messages bring the others.
--
-- KEYS  1 META of the shard
-- ARGV  1 the runtime that asks, then for each task: id, its tenant, or '' for any, tenant of the running task that
--       waits for it, or ''
-- Reply for each task {'o', record} settled, {'l'} settled, but the reply has no more room: ask again, {'w'} to come,
--       {'n'} the tenant has no such task,
--       {'d', tenant} refused: the waiting task holds the only slot of that tenant
--
-- Safe to repeat: a runtime is listed once.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/policy.lua

local BYTES = 500000 -- of records in a reply, by about one record
local FIRST_PART = 600 -- bytes that have the header
local runtime, bytes = ARGV[1], 0
local ids, heads = {}, {}
for i = 2, #ARGV, 3 do
  local head = call('GETRANGE', TASK .. ARGV[i], 0, FIRST_PART - 1) -- the record of a live task may be large
  ids[#ids + 1], heads[#heads + 1] = ARGV[i], readable(head) and head
end

-- Returns the reply for a task that has ended, given the first bytes of its record.
local function outcome_of(id, head)
  if bytes >= BYTES then return { 'l' } end
  local record = #head < FIRST_PART and head or call('GET', TASK .. id)
  bytes = bytes + #record
  return { 'o', record }
end

local function would_deadlock(owner, waiter)
  if owner ~= waiter then return false end
  return (policy_of(owner).concurrency or defaults.concurrency) == 1
end

local replies, register = {}, {}
for i, id in ipairs(ids) do
  local head = heads[i]
  if not head or not is_owned_by(ARGV[3 * i], head) then
    replies[i] = { 'n' }
  elseif head:sub(1, 1) ~= LIVE then
    replies[i] = outcome_of(id, head)
  else
    local owner = tenant_of(head)
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
