-- Gives a runtime its lease.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 lease in ms, 3 what it says of itself, JSON, 4 the tenants that it serves, as lib/assign.lua has it
-- Reply 1
--
-- Safe to repeat. The name of a runtime is never used twice: one that lost its lease joins under a new one.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

local write_assignment = assign(ARGV[1], ARGV[4])
begin_writing()
call('ZADD', LEASES, integer(shard.ms + tonumber(ARGV[2])), ARGV[1]) -- first: whatever is kept of a runtime has a lease
call('HSET', FLEET, ARGV[1], ARGV[3])
write_assignment()
save_counts()
save_shard()
return 1
