-- Gives a runtime its lease.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 lease in ms, 3 its description, JSON, 4 its tenants, packed (see lib/assign.lua)
-- Reply 1
--
-- Safe to repeat: no name is used for two runtimes. One that lost its lease joins under a new name.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/sample.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

local write_assignment = assign(ARGV[1], ARGV[4])
begin_writing()
call('ZADD', LEASES, integer(shard.ms + tonumber(ARGV[2])), ARGV[1]) -- first: a runtime that is known has a lease
call('HSET', FLEET, ARGV[1], ARGV[3])
write_assignment()
sample_counts()
save_counts()
save_shard()
return 1
