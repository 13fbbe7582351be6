-- Gives a runtime its lease.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 lease in ms, 3 its description, JSON, 4 its tenants, packed (see lib/assign.lua),
--       5 the digest of what it can run, 6 what it can run, packed: actors, as JSON text, with their versions; '\31' if it
--       serves certain queues only, and '\31' and the name of each, 7 ms for which tasks wait if nobody can run them,
--       8 how many ended tasks of a tenant are listed, 0 for none
-- Reply {number of its kind, 1 if the ring of the kind has to be filled (fill.lua)}
--
-- Safe to repeat: no name is used for two runtimes. One that lost its lease joins under a new name.

-- @include lib/intact.lua
-- @include lib/register.lua

local write_kind = register(ARGV[1], ARGV[5], ARGV[6], ARGV[7])

-- @include lib/counts.lua
-- @include lib/sample.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

local write_assignment = assign(ARGV[1], ARGV[4])
begin_writing()
call('ZADD', LEASES, integer(shard.ms + tonumber(ARGV[2])), ARGV[1]) -- first: a runtime that is known has a lease
call('HSET', FLEET, ARGV[1], ARGV[3])
local reply = write_kind()
write_assignment()
call('HSET', META, 'ended_index', ARGV[8])
sample_counts()
save_counts()
save_shard()
return reply
