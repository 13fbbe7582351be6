-- Completes the index of backlogs (see lib/counts.lua) in a shard that the release before has created, in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first, or 'end' once all steps are done
-- Reply the next cursor, 0 when only 'end' is left to do
--
-- Safe to repeat: what it writes follows from the counts. A step looks at about 300 tenants. Until the end is noted, whoever
-- reads the index completes it first.

-- @include lib/intact.lua
-- @include lib/counts.lua

if ARGV[1] == 'end' then
  call('HSET', META, 'indexed', '1')
  return '0'
end
local part, indexed = call('HSCAN', COUNTS, ARGV[1], 'COUNT', 300), {}
for i = 1, #part[2], 2 do
  local number = rounded(live(unpack_counts(part[2][i + 1])))
  if number > 0 then indexed[#indexed + 1], indexed[#indexed + 2] = number, part[2][i] end
end
write_all('ZADD', BACKLOG, indexed)
return part[1]
