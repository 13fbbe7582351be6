-- Returns how the tasks of a shard fare: what waits for how long, and what has ended of late.
--
-- KEYS  1 META of the shard
-- ARGV  1 how many mailboxes to look at, and how many policies
-- Reply {now in ms, counts, packed, or '', the last two samples, or '' (see lib/sample.lua),
--        ms that the longest of the sampled tasks that could start has waited, or -1,
--        1 if a runtime is dedicated,
--        [tenant that is paused or has reached its concurrency, how many wait, ms that the first has waited, 1 if it is
--         paused] ...}
--
-- Reads only.

-- @include lib/intact.lua

local HELD_SHOWN = 20
local most, now = tonumber(ARGV[1]), shard.ms

-- Returns the ms that the first task of a mailbox has waited; nil if the mailbox is empty.
local function waited(name)
  local head = call('ZRANGE', QUEUE .. name, 0, 0, 'WITHSCORES')
  if not head[1] then return nil end
  local priority = call('GETRANGE', TASK .. head[1], 2, 2):byte() or 3
  local stamp = tonumber(head[2]) + (priority == CRITICAL and CRITICAL_JUMP or priority * shard.step)
  return math.max(0, now - math.floor(stamp / 1000))
end

-- Tenants are served in the order of the ring: it looks at the next and at the last.
local longest = -1
for _, range in ipairs({ { 0, math.floor(most / 2) - 1 }, { -math.ceil(most / 2), -1 } }) do
  for _, member in ipairs(call('ZRANGE', RING, range[1], range[2])) do
    local name = member:byte() == 255 and call('ZRANGE', GROUP .. member:sub(2), 0, 0)[1] or member
    longest = math.max(longest, waited(name) or -1)
  end
end

-- Tenants that have a pause or a limit of their own have a policy.
local held = {}
local policies = call('HSCAN', POLICY, 0, 'COUNT', most)[2]
for i = 1, #policies, 2 do
  local name, policy = policies[i], cmsgpack.unpack(policies[i + 1])
  local limited = name ~= '' and name:byte() ~= 255 and (policy.paused or policy.concurrency)
  local queued = limited and #held < 4 * HELD_SHOWN and call('ZCARD', QUEUE .. name) or 0
  local ring = policy.group and GROUP .. policy.group or RING
  local is_held = queued > 0 and (policy.paused
    or not call('ZSCORE', ring, name) and not call('ZSCORE', THROTTLED, name))
  if is_held then
    held[#held + 1], held[#held + 2], held[#held + 3] = name, queued, integer(waited(name) or 0)
    held[#held + 1] = policy.paused and 1 or 0
  end
end

local known = call('HMGET', META, 'sample', 'sample_before')
return {
  integer(now), shard.total or '', known[1] or '', known[2] or '', integer(longest),
  call('EXISTS', HOMES), unpack(held),
}
