-- Says what a runtime can run, if the server does not know it.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 to 4 as 5 to 7 of join.lua
-- Reply as of join.lua, or 'lapsed' if the runtime has no lease
--
-- Safe to repeat: it says the same again.

-- @include lib/intact.lua
-- @include lib/register.lua

if tonumber(call('ZSCORE', LEASES, ARGV[1]) or 0) <= NO_LEASE then return 'lapsed' end
local write_kind = register(ARGV[1], ARGV[2], ARGV[3], ARGV[4])

-- @include lib/counts.lua
-- @include lib/ring.lua

begin_writing()
local reply = write_kind()
save_counts()
save_shard()
return reply
