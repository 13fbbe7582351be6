-- Changes which tenants a runtime serves.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 the tenants, packed as lib/assign.lua has it
-- Reply 1, or 0 where the runtime has no lease
--
-- Safe to repeat.

-- @include lib/intact.lua
-- @include lib/assign.lua

if not call('ZSCORE', LEASES, ARGV[1]) then return 0 end
begin_writing()
write_assignment(ARGV[1], ARGV[2])
end_writing()
return 1
