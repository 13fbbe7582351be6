-- Returns how the tasks of a shard fare: what waits for how long, and what has ended of late.
--
-- KEYS  1 META of the shard
-- ARGV  1 how many mailboxes to look at, and how many policies
-- Reply {now in ms, counts, packed, or '', the last two samples, or '' (see lib/sample.lua),
--        ms that the longest of the sampled tasks that could start has waited, or -1,
--        1 if a runtime is dedicated,
--        {lane that no runtime serves, a tenant that waits there, ms that its first task has waited, ...},
--        [tenant that is paused or has reached its concurrency, how many wait, ms that the first has waited, 1 if it is
--         paused] ...}
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/lanes.lua
-- @include lib/waits.lua

local HELD_SHOWN = 20
local MOST_LANES = 1000 -- at which it looks: if there are more, at some
local most, now = tonumber(ARGV[1]), shard.ms

-- Returns the ms that a tenant's first task has waited, of those that a kind of runtimes can run, or any kind; or nil.
local function waited(name, kind)
  local longest = (not lanes or not kind or lanes.serves(kind, '')) and waited_in(QUEUE .. name) or nil
  for _, lane in ipairs(lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do
    local ms = (not kind or lanes.serves(kind, lane)) and waited_in(mailbox(name, lane))
    if ms then longest = math.max(longest or 0, ms) end
  end
  return longest
end

-- Tenants are served in the order of the ring: it looks at the next and at the last.
local longest = -1
for kind in shard.kinds:gmatch('%d+') do
  act_for(kind)
  for _, range in ipairs({ { 0, math.floor(most / 2) - 1 }, { -math.ceil(most / 2), -1 } }) do
    for _, member in ipairs(call('ZRANGE', shard.ring, range[1], range[2])) do
      local name = member:byte() == 255 and call('ZRANGE', shard.group .. member:sub(2), 0, 0)[1] or member
      longest = math.max(longest, name and waited(name, kind) or -1)
    end
  end
end

-- Whether a tenant stands on the ring of any kind.
local function is_on_ring(name, group)
  for kind in shard.kinds:gmatch('%d+') do
    act_for(kind)
    if call('ZSCORE', group and shard.group .. group or shard.ring, name) then return true end
  end
  return false
end

-- Lanes that no runtime serves.
local unserved = {}
if lanes then
  local are_all = call('HLEN', LANES) <= MOST_LANES
  local flat = are_all and call('HGETALL', LANES) or call('HRANDFIELD', LANES, MOST_LANES, 'WITHVALUES')
  for i = 1, #flat, 2 do
    local name = flat[i + 1] ~= '0' and #unserved < 3 * HELD_SHOWN and call('ZRANGE', IN_LANE .. flat[i], 0, 0)[1]
    if name then
      unserved[#unserved + 1], unserved[#unserved + 2] = flat[i], name
      unserved[#unserved + 1] = integer(waited_in(mailbox(name, flat[i])) or 0)
    end
  end
end

-- Tenants that have a pause or a limit of their own have a policy.
local held = {}
local policies = call('HSCAN', POLICY, 0, 'COUNT', most)[2]
for i = 1, #policies, 2 do
  local name, policy = policies[i], cmsgpack.unpack(policies[i + 1])
  local limited = name ~= '' and name:byte() ~= 255 and (policy.paused or policy.concurrency)
  local queued = limited and #held < 4 * HELD_SHOWN and (lanes and lanes.queued(name) or call('ZCARD', QUEUE .. name)) or 0
  local is_held = queued > 0 and (policy.paused
    or not is_on_ring(name, policy.group) and not call('ZSCORE', THROTTLED, name))
  if is_held then
    held[#held + 1], held[#held + 2], held[#held + 3] = name, queued, integer(waited(name) or 0)
    held[#held + 1] = policy.paused and 1 or 0
  end
end

local known = call('HMGET', META, 'sample', 'sample_before')
return {
  integer(now), shard.total or '', known[1] or '', known[2] or '', integer(longest),
  call('EXISTS', HOMES), unserved, unpack(held),
}
