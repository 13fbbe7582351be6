-- Lists the policies that were set, some at a time.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply {the next cursor, 0 at the end, {whose it is as configure.lua has it, the policy, packed, ...}}
--
-- Reads only.

-- @include lib/intact.lua

return call('HSCAN', POLICY, ARGV[1], 'COUNT', 500)
