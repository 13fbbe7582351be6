-- Writes the indexes of dead letters by tenant and by actor, in steps, if not all dead letters are in them.
-- A release that does not know the indexes has added those that are not.
--
-- KEYS  1 META of the shard
-- ARGV  1 how many dead letters at most
-- Reply 1 if there is more to do, else 0
--
-- Bounded: its caller names 100, and 500 kB of records by about one.
-- Safe to repeat: it goes on from what is stored.

-- @include lib/intact.lua
-- @include lib/ended_tasks.lua

local most, BYTES = tonumber(ARGV[1]), 500000
local from = call('HGET', META, 'letters_at')
if are_letters_indexed() then
  if from then call('HDEL', META, 'letters_at') end
  return 0
end
local found, bytes, last = call('ZRANGEBYSCORE', DEAD, from or '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, most), 0, nil
for i = 1, #found, 2 do
  if bytes >= BYTES then break end
  local record = call('GET', TASK .. found[i]) or ''
  bytes, last = bytes + #record, found[i + 1]
  if readable(record) then index_letter(found[i], found[i + 1], record) end
end
local has_all = #found < 2 * most and last == found[#found]

begin_writing()
write_letter_indexes()
if has_all then
  call('HDEL', META, 'letters_at')
  call('HSET', META, 'letters', call('ZCARD', DEAD))
else
  -- Those at the last score may not all be there. If all were at one score, it goes on behind that.
  call('HSET', META, 'letters_at', (last == from or found[2] == last) and '(' .. last or last)
end
end_writing()
return has_all and 0 or 1
