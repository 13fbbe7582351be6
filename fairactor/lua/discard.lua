-- Deletes dead letters for good.
--
-- KEYS  1 META of the shard
-- ARGV  1 the tenant whose dead letters to delete, or '' for any, 2 and on: ids
-- Reply how many of them were dead letters
--
-- Safe to repeat: a deleted one is no dead letter. The counts of failed tasks stay.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/ended_tasks.lua

local BEGINNING = 16384 -- bytes that it reads of a record, which may be large
local tenant, ids, keys, discarded = ARGV[1], {}, {}, {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
for i, id in ipairs(ids) do
  local record = call('GETRANGE', TASK .. id, 0, BEGINNING - 1)
  record = readable(record) and record
  local is_letter = record and record:sub(1, 1) == DEAD_STATE and is_owned_by(tenant, record)
  if not record and tenant == '' then is_letter = call('ZSCORE', DEAD, id) end -- lost, or it cannot be read
  if is_letter then
    keys[#keys + 1], discarded[#discarded + 1] = TASK .. id, id
    if record then remove_letter(id, record) end
  end
end
begin_writing()
local deleted = call_all('DEL', keys)
change_letters('ZREM', discarded)
write_letter_indexes()
end_writing()
return deleted
