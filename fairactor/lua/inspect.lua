-- What is known of a task.
--
-- KEYS  1 META of the shard
-- ARGV  1 id
-- Reply {} where there is no such task, else {state, record, when it is due in ms or '', runtime or '',
--       how long the record is kept in ms or -1, its progress or ''}; the state of a settled one is 'settled' and stands in the record
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/locate.lua

local id = ARGV[1]
local record = call('GET', TASK .. id)
if not readable(record) then return {} end
local state, runtime = locate(id, record)
return { state, record, call('ZSCORE', SCHEDULED, id) or '', runtime or '', call('PTTL', TASK .. id),
  call('HGET', PROGRESS, id) or '' }
