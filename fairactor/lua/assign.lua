-- Changes which tenants a runtime serves.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 its tenants, packed (see lib/assign.lua)
-- Reply 1, or 0 if the runtime has no lease
--
-- Safe to repeat: it assigns the same tenants again.

-- @include lib/intact.lua
-- @include lib/acting.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

if tonumber(call('ZSCORE', LEASES, ARGV[1]) or 0) <= NO_LEASE then return 0 end
local write_assignment = assign(ARGV[1], ARGV[2])
begin_writing()
write_assignment()
save_counts()
save_shard()
wake_all()
return 1
