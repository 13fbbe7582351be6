-- Lists dead letters in the order in which they expire.
--
-- KEYS  1 META of the shard
-- ARGV  1 first place, 2 last place, 3 how many to skip, 4 how many at most, 5 a tenant, or '', 6 an actor, as the indexes
--       name it, or '': those of others are left out if the indexes have all dead letters
-- Reply {place of the last dead letter, 1 if it ends early because the records are large, else 0,
--       [place, id, record] ...}; a place is when the record expires, in µs. The record is '' if the task is no dead
--       letter, and as it is if it cannot be read
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/ended_tasks.lua

local from, to, offset, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = index_of_letters(ARGV[5], ARGV[6])
local found = call('ZRANGEBYSCORE', key, from, to, 'WITHSCORES', 'LIMIT', offset, count)
local BYTES = 500000 -- of records in a reply, by about one record
local ids, bytes, reply = {}, 0, { integer(tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) or 0), 0 }
for i = 1, #found, 2 do
  if bytes >= BYTES then
    reply[2] = 1
    break
  end
  ids[#ids + 1] = found[i]
  bytes = bytes + call('STRLEN', TASK .. found[i])
end
for i, record in ipairs(read_records(ids)) do
  reply[#reply + 1], reply[#reply + 2] = integer(tonumber(found[2 * i])), ids[i]
  if not record then record = call('MGET', TASK .. ids[i])[1] elseif record:sub(1, 1) ~= DEAD_STATE then record = '' end
  reply[#reply + 1] = record or ''
end
return reply
