-- Renews the lease of a runtime whose event loop is blocked. Turns renew it otherwise.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 lease in ms
-- Reply 1, or 0 if the runtime has no lease: its claims belong to others now
--
-- Safe to repeat: a lease only gets longer, and none is made. It does not count as a turn: whether the server was away
-- (see turn.lua), only turns can tell. It works on a shard that has to be repaired, too: the repair keeps the leases.

-- @include lib/base.lua

local lease_end = tonumber(call('ZSCORE', LEASES, ARGV[1]))
if not lease_end or lease_end <= NO_LEASE then return 0 end
local new_end = shard.ms + tonumber(ARGV[2])
if new_end > lease_end then call('ZADD', LEASES, integer(new_end), ARGV[1]) end
return 1
