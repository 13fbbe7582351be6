-- Ends a runtime's lease. Its claims go back to their places. They count as deliveries only if what it ran ended it.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 1 if what it ran ended it, else 0, 3 to 5 then: deliveries after which a task fails, ms to keep
--       its record, its outcome
-- Reply {claims taken back, claims left: call again}
--
-- Safe to repeat: a runtime that has left has no claims, and why it left stays as the first call said.

-- @include lib/intact.lua
-- @include lib/fleet.lua

local write_kind = end_kind_of(ARGV[1])

-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua
-- @include lib/release.lua

shard.failed_ttl = tonumber(ARGV[4])
local why = why_ended(ARGV[1]) or (ARGV[2] == '1' and 'crashed' or 'left')
local number, left, assigned_tenants, write_release = release(ARGV[1], why, tonumber(ARGV[3]), ARGV[5])
run_ends_hook()
update_ring(arriving)
if not shard.kind_goes then clamp_tags(assigned_tenants) end

begin_writing()
write_release()
write_kind()
save_counts()
save_shard()
wake_all()
return { number, left }
