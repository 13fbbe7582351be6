-- Changes which tenants a runtime serves.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 the tenants, packed as lib/assign.lua has it
-- Reply 1, or 0 where the runtime has no lease
--
-- Safe to repeat.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

if not call('ZSCORE', LEASES, ARGV[1]) then return 0 end
local write_assignment = assign(ARGV[1], ARGV[2])
begin_writing()
write_assignment()
save_counts()
save_shard()
wake_all()
return 1
