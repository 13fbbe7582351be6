-- Lists dead letters, the one that expires first before the others: so in the order in which they failed.
--
-- KEYS  1 META of the shard
-- ARGV  1 from which place, 2 how many at most
-- Reply {place, id, record ...}; a place is when the record expires, in µs
--
-- Reads only.

-- @include lib/intact.lua

local found = call('ZRANGEBYSCORE', DEAD, ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
local ids, reply = {}, {}
for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
for i, record in ipairs(read_records(ids)) do
  reply[#reply + 1], reply[#reply + 2] = integer(tonumber(found[2 * i])), ids[i]
  reply[#reply + 1] = record and record:sub(1, 1) == DEAD_STATE and record or ''
end
return reply
