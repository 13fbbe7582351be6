-- Counts, at a cost that does not depend on what is counted.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, or nothing for the whole shard
-- Reply of a tenant {counts, packed, or '', policy, packed, or ''};
--       of the shard {counts, tenants that could be served now, tenants with counts, tasks due now,
--       [runtime, what it says of itself, ms of lease left] ...}
--
-- Reads only.

-- @include lib/base.lua

if ARGV[1] then return { call('HGET', COUNTS, ARGV[1]) or '', call('HGET', POLICY, ARGV[1]) or '' } end

local now = math.floor(shard.now / 1000)
local reply = {
  shard.total or '',
  call('ZCARD', RING), call('HLEN', COUNTS), call('ZCOUNT', SCHEDULED, '-inf', integer(now)),
}
local leases = call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  reply[#reply + 1] = leases[i]
  reply[#reply + 1] = call('HGET', FLEET, leases[i]) or ''
  reply[#reply + 1] = tonumber(leases[i + 1]) - now
end
return reply
