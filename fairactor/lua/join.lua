-- Gives a runtime its lease.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 lease in ms, 3 what it says of itself, JSON
-- Reply 1
--
-- Safe to repeat. The name of a runtime is never used twice: one that lost its lease joins under a new one.

-- @include lib/base.lua

call('HSET', FLEET, ARGV[1], ARGV[3])
call('ZADD', LEASES, integer(math.floor(shard.now / 1000) + tonumber(ARGV[2])), ARGV[1])
return 1
