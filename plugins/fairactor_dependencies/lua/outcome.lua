-- A part: how a task ended, by its record.

-- @takes HEADER, CANCELED_STATE, DEAD_STATE from lib/base.lua

local SKIPPED = 'S'

-- Returns the result in a finished task's record, as JSON.
local function result_in(record)
  local line = record and record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))) or ''
  local _, from = line:find('"result":', 1, true)
  return from and line:sub(from + 1, (line:match('.*(),"started_at":') or #line) - 1) or 'null'
end

-- Returns how a task ended, by its record, and the root: '' if it is another task.
local function state_of(id, record)
  local state, _, _, _, _, _, body = struct.unpack(HEADER, record)
  local reason = state == CANCELED_STATE and record:sub(body):match('^{"error":{"type":"(%a+)"')
  if reason == 'UpstreamFailed' then return DEAD_STATE, '' end
  if reason == 'TaskSkipped' then return SKIPPED, id end
  return state, id
end

-- The end of a task for those that ask once its record is gone: state, root, tenant; then the result.
local END = '>c1Hc0Hc0'

local function pack_end(state, root, tenant, result)
  return struct.pack(END, state, #root, root, #tenant, tenant) .. (state == 'F' and result or '')
end
