-- Fills the ring of a new kind of runtimes, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 a runtime of the kind
-- Reply 1 if there is more to do, else 0
--
-- Safe to repeat: it goes on where the call before ended.

-- @include lib/intact.lua
-- @include lib/acting.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local LOOK = 50 -- tenants, about
local cursor = acts and call('HGET', KIND .. shard.kind, '\31\31filling')
if not cursor then return 0 end
local found, names = call('HSCAN', COUNTS, cursor, 'COUNT', LOOK), {}
for i = 1, #found[2], 2 do names[#names + 1] = found[2][i] end
load_tenants(names)
local _, waiting = without_limits(names)
update_ring(waiting)

begin_writing()
if found[1] == '0' then
  call('HDEL', KIND .. shard.kind, '\31\31filling')
else
  call('HSET', KIND .. shard.kind, '\31\31filling', found[1])
end
save_counts()
save_shard()
return found[1] == '0' and 0 or 1
