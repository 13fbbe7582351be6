-- Lists the policies that were set, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply {next cursor, 0 at the end, {name as in configure.lua, policy, packed, ...}}
--
-- Reads only.

-- @include lib/intact.lua

return call('HSCAN', POLICY, ARGV[1], 'COUNT', 500)
