-- Deletes dead letters for good.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: ids
-- Reply how many of them were dead letters
--
-- Safe to repeat: a deleted one is no dead letter. The counts of failed tasks stay.

-- @include lib/intact.lua

local keys, discarded = {}, {}
for i, record in ipairs(read_records(ARGV)) do
  if record and record:sub(1, 1) == DEAD_STATE then
    keys[#keys + 1], discarded[#discarded + 1] = TASK .. ARGV[i], ARGV[i]
  end
end
begin_writing()
local deleted = call_all('DEL', keys)
write_all('ZREM', DEAD, discarded)
end_writing()
return deleted
