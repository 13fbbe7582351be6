-- Does what earlier scripts have left to do, closes gates that nobody has opened in time, and hands out messages for other
-- shards: each for a while, then others get it, until it is acknowledged.
--
-- KEYS  1 META of the shard
-- ARGV  1 the most messages, 2 ms for which they are this caller's
-- Reply {1 if there is more to do at once, else 0, or -1 where nobody has used the plugin yet, message, ...}
--
-- Safe to repeat: what is told twice changes nothing.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

if not (shard.plugins or ''):find(',' .. SELF .. ',', 1, true) then return { -1 } end
local most, mine_for = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = integer(shard.ms)
local mine = share(SELF)
local messages = call('ZRANGEBYSCORE', OWN .. 'outbox', '-inf', now, 'LIMIT', 0, most)
local field = call('HRANDFIELD', OWN .. 'rest')
local run = call('ZRANGEBYSCORE', OWN .. 'gates', '-inf', now, 'LIMIT', 0, 1)[1]
if #messages == 0 and not field and not run then return { 0 } end
mine.rest = field and { { field, call('HGET', OWN .. 'rest', field) } }
mine.gates = run and { { run, 'C' } }
local dues = {}
for _, message in ipairs(messages) do dues[#dues + 1], dues[#dues + 2] = integer(shard.ms + mine_for), message end
later[#later + 1] = function() write_all('ZADD', OWN .. 'outbox', dues) end
conclude()
seat(arriving)

begin_writing()
write_ends()
write_queues()
save_counts()
save_shard()
return { (field or run or #messages == most) and 1 or 0, unpack(messages) }
