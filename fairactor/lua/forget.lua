-- Deletes the records of tasks that have finished or were canceled.
--
-- KEYS  1 META of the shard
-- ARGV  1 the tenant whose tasks they are, or '' for any, 2 and on: ids
-- Reply how many of them it has deleted
--
-- Bounded: its caller names 200 tasks; it reads the beginnings of their records.
-- Safe to repeat: a deleted record is not there. The counts stay. Lists of ended tasks may name it: readers pass over it.

-- @include lib/intact.lua
-- @include lib/owner.lua

local gone = {}
for i = 2, #ARGV do
  local record = call('GETRANGE', TASK .. ARGV[i], 0, 599)
  local state = readable(record) and record:sub(1, 1)
  if (state == DONE or state == CANCELED_STATE) and is_owned_by(ARGV[1], record) then
    gone[#gone + 1] = TASK .. ARGV[i]
  end
end
return call_all('DEL', gone)
