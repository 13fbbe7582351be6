-- Counts, at a cost that does not depend on what is counted.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, or nothing for the whole shard
-- Reply of a tenant {counts, packed, or '', policy, packed, or '', how many are queued};
--       of the shard {counts, how many have started, tenants that could be served now, tenants with counts,
--       tasks due now, dead letters, [runtime, what it says of itself, ms of lease left] ...}
--
-- Reads only.

-- @include lib/intact.lua

local tenant = ARGV[1]
if tenant then
  return { call('HGET', COUNTS, tenant) or '', call('HGET', POLICY, tenant) or '', call('ZCARD', QUEUE .. tenant) }
end

local now = shard.ms
local started, fleet = 0, {}
local leases = call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  started = started + call('HLEN', CLAIMS .. leases[i])
  fleet[#fleet + 1] = leases[i]
  fleet[#fleet + 1] = call('HGET', FLEET, leases[i]) or ''
  fleet[#fleet + 1] = tonumber(leases[i + 1]) - now
end
return {
  shard.total or '', started, call('ZCARD', RING), call('HLEN', COUNTS),
  call('ZCOUNT', SCHEDULED, '-inf', integer(now)), call('ZCOUNT', DEAD, integer(shard.now), '+inf'), unpack(fleet),
}
