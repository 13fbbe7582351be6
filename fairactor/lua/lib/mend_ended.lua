-- Writes the indexes of dead letters anew.

-- @include lib/mend_steps.lua
-- @include lib/ended_tasks.lua

local function delete_index(_, key)
  spend(1)
  call('UNLINK', key)
end

-- That of the actor that cannot be read: nothing lists it.
local function delete_index_of_unknown() call('UNLINK', DEAD_BY, DEAD_OF) end

local function index_letters(_, flat)
  for i = 1, #flat, 2 do
    local record = call('GETRANGE', TASK .. flat[i], 0, 65535) -- its call may be behind a long outcome
    spend(8)
    if readable(record) then index_letter(flat[i], integer(tonumber(flat[i + 1])), record) end
  end
  write_letter_indexes()
  indexed_letters = {}
end

local function note_letters() call('HSET', META, 'letters', call('ZCARD', DEAD)) end
