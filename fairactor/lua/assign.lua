-- Changes which tenants a runtime serves.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 its tenants, packed (see lib/assign.lua), 3 '+' to add them to those before, else ''
-- Reply 1, or 0 if the runtime has no lease, or 2 if it had too many tenants to replace them in one step: some of them were
--       taken from it, call again
--
-- Safe to repeat: it assigns the same tenants again. The caller bounds the number of names.

-- @include lib/intact.lua
-- @include lib/acting.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/assign.lua

if tonumber(call('ZSCORE', LEASES, ARGV[1]) or 0) <= NO_LEASE then return 0 end
local adds = ARGV[3] == '+'
local has_more = not adds and has_too_many(ARGV[1])
local write_assignment = has_more and unassign_some(ARGV[1]) or assign(ARGV[1], ARGV[2], adds)
begin_writing()
write_assignment()
save_counts()
save_shard()
wake_all()
return has_more and 2 or 1
