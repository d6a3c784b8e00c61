"""Operations on ragged maps: in plain torch, and as compiled code where that was built."""
