GOOD={}
def play(*a): return []
